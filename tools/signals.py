"""What ends a tool from outside: Ctrl-C, SIGTERM and a closed terminal.

It imports little, so that a tool can call it before it imports much.
"""

import atexit
import os
import signal
import sys

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def exit_on_signals(at_end=None):
    """Makes these signals unwind the program, so that everything it started is stopped. Then calls `at_end()`.

    A second signal doesn't cut that short. Child processes don't call `at_end`.
    """
    process = os.getpid()

    def unwind(number, _frame):
        for one in ENDS:
            signal.signal(one, signal.SIG_IGN)
        if at_end and os.getpid() == process:
            atexit.register(at_end)
        sys.exit(128 + number)

    for one in ENDS:
        signal.signal(one, unwind)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)


def hold():
    """Makes the signals wait until the program that replaces this one calls `exit_on_signals`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)


def say_stopped():
    import local_stack  # not earlier, because a signal may come while the tool imports its modules

    earlier = "The earlier local stack is still running. To stop it: make stop"
    clear = "\r\x1b[K" if sys.stdout.isatty() else ""  # a line of progress may be there
    print(clear + "Stopped. " + (earlier if local_stack.load() else "Nothing is left running."), flush=True)
