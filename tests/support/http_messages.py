"""An HTTP request as a local server received it, and the reply that it sends."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit


@dataclass(eq=False)
class RecordedRequest:
    """`status` stays None if the request was never answered. `id` is the request ID in AWS's answer."""

    method: str
    target: str  # the path and query exactly as sent
    headers: dict[str, str]
    body: bytes
    path: str = ""
    query: dict[str, list[str]] = field(default_factory=dict)
    call: str = ""
    status: int | None = None
    id: str = ""
    at: float = field(default_factory=time.monotonic)

    def __post_init__(self):
        parts = urlsplit(self.target)
        self.path = parts.path
        self.query = parse_qs(parts.query, keep_blank_values=True) if parts.query else {}

    def json(self):
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """The body may be a function of the request."""

    status: int
    body: bytes | str | Callable[[RecordedRequest], bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
