"""Faults of a local server. A `Reply` is also a fault: the server sends it instead of acting on the request."""

from collections.abc import Callable
from dataclasses import dataclass

from .http_messages import RecordedRequest, Reply


@dataclass(frozen=True)
class Delay:
    """Waits, then acts normally."""

    seconds: float


@dataclass(frozen=True)
class DropBefore:
    """Closes the connection without acting."""


@dataclass(frozen=True)
class DropAfter:
    """Acts, then closes the connection without answering."""


@dataclass(frozen=True)
class Truncate:
    """Acts, promises the whole reply, sends half of it, and closes the connection."""


@dataclass(frozen=True)
class Endless:
    """Answers 200 and then sends bytes until the client closes the connection."""

    content_type: str = "application/json"


@dataclass(frozen=True)
class Kill:
    """Kills the client with `kill()`, before or after acting, and closes the connection."""

    kill: Callable[[], None]
    acts: bool


@dataclass(frozen=True)
class Hold:
    """Waits until `wait()` returns, then acts normally."""

    wait: Callable[[], None]


@dataclass(frozen=True)
class Reset:
    """Resets the connection, before or after acting."""

    acts: bool


@dataclass(frozen=True)
class Relabel:
    """Acts and answers with another content type."""

    content_type: str


Fault = Reply | Delay | DropBefore | DropAfter | Truncate | Endless | Kill | Hold | Reset | Relabel


@dataclass
class PlannedFault:
    """A fault for the next `times` matching requests after the first `skip`; for all of them if `times` is None."""

    matches: Callable[[RecordedRequest], bool]
    fault: Fault
    times: int | None
    skip: int

    def applies_to(self, request: RecordedRequest) -> bool:
        if self.times == 0 or not self.matches(request):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True
