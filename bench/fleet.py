"""Measures runs of 10 and of 300 targets with 128 MB's CPU, from which docs/fleet.md computes the price of a fleet.

It uses the function that is built, and adds 50 ms to every call, as bench.py does. It prints the seconds of each
function's first run, including its start, and how much the function logs.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]

import environment  # noqa: E402
import functions  # noqa: E402
import step  # noqa: E402
from support.emulated_function import EmulatedFunction  # noqa: E402
from support.local_cloud import LocalCloud  # noqa: E402
from support.paths import MINISTACK  # noqa: E402
from throttle import Throttle  # noqa: E402

LATENCY = 0.05  # seconds added to every upstream call
COUNTS = (10, 300)


def measure(stack, throttle, count):
    """The seconds of one run, and the bytes of the log for each target."""
    variables = functions.listed_targets(stack, count)
    with EmulatedFunction(throttle.bootstrap(functions.BOOTSTRAP), variables, timeout=900) as function:
        result = functions.rotate(function)
        # Only the function's own lines are JSON. The emulator adds others.
        lines = [line for line in function.logs() if line.startswith("{")]
        return result.seconds, sum(map(len, lines)) / count


def main():
    environment.prepare()
    step.exit_on_signals()
    with LocalCloud(MINISTACK) as stack, Throttle() as throttle:
        if throttle.missing:
            sys.exit(throttle.missing)
        stack.aws.latency = stack.braintrust.latency = LATENCY
        for count in COUNTS:
            seconds, logged = measure(stack, throttle, count)
            print(f"{count} targets: {seconds:.2f} s, and {logged:.0f} bytes of log for each target", flush=True)


if __name__ == "__main__":
    main()
