"""Finds free ports for programs that cannot choose one themselves."""

import random
import socket

# Below the range that the kernel takes clients' ports from: a port that was free a moment ago would else be
# taken by some connection before the program binds it.
_FIRST, _LAST = 10_000, 32_000


def free_port() -> int:
    """A port that nobody listens on. Random, because tests in several processes ask at once."""
    while True:
        port = random.SystemRandom().randint(_FIRST, _LAST)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
