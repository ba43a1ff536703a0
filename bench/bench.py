"""Measures the function under Lambda's runtime interface emulator, beside one that does nothing and beside the same
job written by hand in Python. Prints one table, and writes it with two pictures beside this file; nothing here
passes or fails.
"""

import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]

import functions  # noqa: E402
import results  # noqa: E402
import step  # noqa: E402
from support.braintrust import Braintrust  # noqa: E402
from support.function import Function  # noqa: E402
from support.stack import Stack  # noqa: E402
from support.tls import private_ca  # noqa: E402
from scale import rotated_at_once  # noqa: E402
from table import Row, plain  # noqa: E402
from throttle import CORES, MEMORY_MB, PERIOD_US, Throttle  # noqa: E402

HERE = Path(__file__).resolve().parent
MINISTACK = ROOT / ".tools/ministack/bin/ministack"

COLD_STARTS = 25  # each
FIRSTS = 7  # each; Python's take seconds where the CPU is throttled
WARM = 20
LATENCY = 0.05  # seconds added to every upstream call
SCALE = (1, 10, 100, 1_000, 10_000)
ABOUT = f"""Under Lambda's runtime interface emulator. Every call to AWS and Braintrust, both on this machine, is given
{LATENCY * 1000:.0f} ms; the functions with one target call Braintrust over TLS, and AWS without; cold starts are with public roots only. A figure is the median
of {COLD_STARTS} cold starts ({FIRSTS} of Python's where the CPU is throttled), {FIRSTS} first rotations or {WARM} warm
ones. The memory, and each number of targets (in a function's first rotation), are taken once."""
COLD, SLOW_COLD = "cold start", f"cold start, {MEMORY_MB} MB's CPU"


def named(count):
    return f"{count:,} target{'s' if count > 1 else ''}"


def first_rotation(subject, bootstrap_of=functions.own_bootstrap):
    """Milliseconds of a function's first rotation, without its start."""
    took = []
    for _ in range(FIRSTS):
        with Function(bootstrap_of(subject), subject.environment) as function:
            took.append(functions.rotate(function)[1])
    return statistics.median(took)


def warm_rotation(subject):
    """Milliseconds of a later one, and the peak memory in MB."""
    with Function(subject.bootstrap, subject.environment) as function:
        functions.rotate(function)
        warm = statistics.median(functions.rotate(function)[1] for _ in range(WARM))
        return warm, functions.peak_kilobytes(function) / 1024


def compared(compared_subjects):
    nothing, ours, by_hand = compared_subjects
    idle, cold, python = functions.cold_starts(compared_subjects, COLD_STARTS)
    yield Row(COLD, "ms", cold, python, idle, f"{cold / idle:.2f} x do nothing (at most 2)")
    carried = f"Python: {', '.join(functions.boto3_bytes()[1])}; in Lambda's runtime, or deployed to have them pinned"
    yield Row("size, unzipped", "MB", ours.megabytes, by_hand.megabytes, nothing.megabytes, f"at most 5 MB. {carried}")
    first, python_first = map(first_rotation, (ours, by_hand))
    yield Row("first rotation", "ms", first, python_first, remark="after the start; with the API key's reading")
    (_, idle_memory), (warm, memory), (python_warm, python_memory) = map(warm_rotation, compared_subjects)
    calls = f"this: {warm / (LATENCY * 1000):.2f} calls one after another, a probe beside them"
    yield Row("warm rotation", "ms", warm, python_warm, remark=calls)
    yield Row("peak memory, after these", "MB", memory, python_memory, idle_memory, "at most 12 MB")


def throttled(compared_subjects):
    with Throttle() as throttle:
        if throttle.missing:
            yield Row(SLOW_COLD, "ms", None, remark=throttle.missing)
            return

        def held(subject):
            return throttle.bootstrap(subject.bootstrap)

        nothing, ours, by_hand = compared_subjects
        idle, cold = functions.cold_starts((nothing, ours), COLD_STARTS, held)
        [python] = functions.cold_starts((by_hand,), FIRSTS, held)
        quota = f"{CORES:.3f} of a core, in periods of {PERIOD_US / 1000:.0f} ms"
        yield Row(SLOW_COLD, "ms", cold, python, idle, f"{quota}; Lambda itself may give more while a function starts")
        firsts = [first_rotation(subject, held) for subject in (ours, by_hand)]
        yield Row(f"first rotation, {MEMORY_MB} MB's CPU", "ms", *firsts, remark="after the start")


def measure(stack, braintrust, bundle, nothing):
    compared_subjects = functions.subjects(stack, braintrust, bundle, nothing)
    for server in (stack.aws, stack.braintrust, braintrust):
        server.latency = LATENCY
    yield from compared(compared_subjects)
    yield from throttled(compared_subjects)
    for count in SCALE:
        yield from rotated_at_once(stack, count, named(count))


def main():
    step.exit_on_signals()
    nothing = functions.do_nothing()
    rows = []
    print(plain())
    with tempfile.TemporaryDirectory() as directory, Stack(MINISTACK) as stack:
        tls, bundle = private_ca(Path(directory), "127.0.0.1")
        with Braintrust(tls) as braintrust:
            braintrust.add_key(stack.braintrust_api_key)
            for row in measure(stack, braintrust, bundle, nothing):
                print(plain(row), flush=True)
                rows.append(row)
    cold = {"A whole core": COLD, f"The CPU of {MEMORY_MB} MB: {CORES:.3f} of a core": SLOW_COLD}
    results.write(HERE, rows, ABOUT, cold, {count: named(count) for count in SCALE})


if __name__ == "__main__":
    main()
