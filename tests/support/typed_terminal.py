"""Runs a program at a terminal and types answers to what it asks, as a person would."""

import os
import pty
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path


def run_at_terminal(
    command: list[str],
    environment: dict[str, str],
    folder: Path,
    answers: list[tuple[str, str | Callable[[], str]]],
    timeout: float = 120,
) -> tuple[str, int]:
    """What the screen showed, and the exit status. Each answer is typed when the text before it has appeared.

    An answer that is "^C" presses Ctrl-C. A function is called at that moment, and returns the answer.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execve(command[0], command, environment)
    screen, typed_at, waiting, deadline = "", 0, list(answers), time.monotonic() + timeout
    try:
        while output := _read(terminal, deadline):
            screen += output
            if waiting and waiting[0][0] in screen[typed_at:]:
                answer, typed_at = waiting.pop(0)[1], len(screen)
                answer = answer() if callable(answer) else answer
                _press(terminal, answer)
        _, status = os.waitpid(pid, 0)
        pid = None
    except TimeoutError:
        raise AssertionError(f"the program takes too long; it still has to ask {waiting}:\n{screen}") from None
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(terminal)
    assert not waiting, f"the program never asked {waiting[0][0]!r}:\n{screen}"
    return screen.replace("\r\n", "\n"), os.waitstatus_to_exitcode(status)


def _press(terminal: int, answer: str):
    if answer == "^C":
        # Python doesn't notice a signal that arrives between its prompt and the start of its read. No person is so fast.
        time.sleep(0.5)
    os.write(terminal, b"\x03" if answer == "^C" else f"{answer}\n".encode())


def _read(terminal: int, deadline: float) -> str:
    """Empty when the program has ended."""
    ready, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
    if not ready:
        raise TimeoutError
    try:
        return os.read(terminal, 65536).decode(errors="replace")
    except OSError:
        return ""
