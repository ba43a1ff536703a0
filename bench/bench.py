"""Measures the function, one that does nothing, and one that does the same job in Python, under Lambda's emulator.

    bench.py ARCH

Prints a table, and writes it with two pictures into bench/. It only measures: no figure makes it fail.
"""

import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]

import environment  # noqa: E402
import functions  # noqa: E402
import results  # noqa: E402
import step  # noqa: E402
from support.local_braintrust import LocalBraintrust  # noqa: E402
from support.emulated_function import EmulatedFunction  # noqa: E402
from support.local_cloud import LocalCloud  # noqa: E402
from support.tls import private_ca  # noqa: E402
from scale import rotated_at_once  # noqa: E402
from table import Row, plain  # noqa: E402
from throttle import CORES, MEMORY_MB, PERIOD_US, Throttle  # noqa: E402

HERE = Path(__file__).resolve().parent
MINISTACK = ROOT / ".tools/ministack/bin/ministack"

COLD_STARTS = 25  # of each function
FIRSTS = 7  # first rotations of each function; Python's take seconds each where the CPU is throttled
WARM = 20
LATENCY = 0.05  # seconds added to every upstream call
SCALE = (1, 10, 100, 1_000, 10_000)
ABOUT = f"""The functions run under Lambda's runtime interface emulator. AWS and Braintrust are servers on this machine
that add {LATENCY * 1000:.0f} ms to every call. With one target, a function calls Braintrust over TLS and AWS without
TLS. Cold starts use the public root certificates only. Each figure is the median of {COLD_STARTS} cold starts
({FIRSTS} of Python's where the CPU is throttled), {FIRSTS} first rotations, or {WARM} warm rotations. Memory is
measured once, and so is each number of targets, in a function's first rotation."""
COLD, SLOW_COLD = "cold start", f"cold start, {MEMORY_MB} MB's CPU"


def named(count):
    return f"{count:,} target{'s' if count > 1 else ''}"


def first_rotation(subject, bootstrap_of=functions.own_bootstrap):
    """The milliseconds of a function's first rotation, not counting its start."""
    durations = []
    for _ in range(FIRSTS):
        with EmulatedFunction(bootstrap_of(subject), subject.environment) as function:
            durations.append(functions.rotate(function)[1])
    return statistics.median(durations)


def warm_rotation(subject):
    """The milliseconds of a later rotation, and the peak memory in MB."""
    with EmulatedFunction(subject.bootstrap, subject.environment) as function:
        functions.rotate(function)
        warm = statistics.median(functions.rotate(function)[1] for _ in range(WARM))
        return warm, functions.peak_kilobytes(function) / 1024


def compared(compared_subjects):
    nothing, ours, by_hand = compared_subjects
    idle, cold, python = functions.cold_starts(compared_subjects, COLD_STARTS)
    yield Row(COLD, "ms", cold, python, idle, f"{cold / idle:.2f} times do nothing (at most 2)")
    packages = f"Python: {', '.join(functions.boto3_bytes()[1])}, from Lambda's runtime or deployed with the function"
    yield Row("size, unzipped", "MB", ours.megabytes, by_hand.megabytes, nothing.megabytes, f"at most 5 MB. {packages}")
    first, python_first = map(first_rotation, (ours, by_hand))
    yield Row("first rotation", "ms", first, python_first, remark="without the start; includes reading the API key")
    (_, idle_memory), (warm, memory), (python_warm, python_memory) = map(warm_rotation, compared_subjects)
    calls = f"this function: the time of {warm / (LATENCY * 1000):.2f} sequential calls, beside which the probe runs"
    yield Row("warm rotation", "ms", warm, python_warm, remark=calls)
    yield Row("peak memory, after those rotations", "MB", memory, python_memory, idle_memory, "at most 12 MB")


def throttled(compared_subjects):
    with Throttle() as throttle:
        if throttle.missing:
            yield Row(SLOW_COLD, "ms", None, remark=throttle.missing)
            return

        def throttled_bootstrap(subject):
            return throttle.bootstrap(subject.bootstrap)

        nothing, ours, by_hand = compared_subjects
        idle, cold = functions.cold_starts((nothing, ours), COLD_STARTS, throttled_bootstrap)
        [python] = functions.cold_starts((by_hand,), FIRSTS, throttled_bootstrap)
        quota = f"{CORES:.3f} of a core, in periods of {PERIOD_US / 1000:.0f} ms"
        yield Row(SLOW_COLD, "ms", cold, python, idle, f"{quota}; Lambda may allow more while a function starts")
        firsts = [first_rotation(subject, throttled_bootstrap) for subject in (ours, by_hand)]
        yield Row(f"first rotation, {MEMORY_MB} MB's CPU", "ms", *firsts, remark="without the start")


def measure(stack, braintrust, bundle, nothing):
    compared_subjects = functions.subjects(stack, braintrust, bundle, nothing)
    for server in (stack.aws, stack.braintrust, braintrust):
        server.latency = LATENCY
    yield from compared(compared_subjects)
    yield from throttled(compared_subjects)
    for count in SCALE:
        yield from rotated_at_once(stack, count, named(count))


def main():
    [arch] = sys.argv[1:]
    environment.prepare()
    step.exit_on_signals()
    nothing = functions.do_nothing(arch)
    rows = []
    print(plain())
    with tempfile.TemporaryDirectory() as directory, LocalCloud(MINISTACK) as stack:
        tls, bundle = private_ca(Path(directory), "127.0.0.1")
        with LocalBraintrust(tls) as braintrust:
            braintrust.add_key(stack.braintrust_api_key)
            for row in measure(stack, braintrust, bundle, nothing):
                print(plain(row), flush=True)
                rows.append(row)
    cold = {"A whole core": COLD, f"The CPU of {MEMORY_MB} MB: {CORES:.3f} of a core": SLOW_COLD}
    results.write(HERE, rows, ABOUT, cold, {count: named(count) for count in SCALE})


if __name__ == "__main__":
    main()
