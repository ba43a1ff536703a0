"""Keeps two processes from doing the same thing at once."""

import contextlib
import fcntl
import os


@contextlib.contextmanager
def wait_for_turn(file, does):
    """A context for one process at a time; `does` says what it does there. Its turn ends with the process."""
    file.parent.mkdir(exist_ok=True)
    with open(file, "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            print(f"Waiting for process {lock.read()}, which {does}.", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
