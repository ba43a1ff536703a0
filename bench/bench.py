"""Measures the function, one that does nothing, and one that does the same job in Python, under Lambda's emulator.

    bench.py ARCH

Prints two tables, and writes them with pictures into bench/. It only measures: no figure makes it fail.
"""

import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]

import environment  # noqa: E402
import functions  # noqa: E402
import new_environment  # noqa: E402
import results  # noqa: E402
import step  # noqa: E402
from distance import Distance  # noqa: E402
from round_trips import sequence  # noqa: E402
from support.emulated_function import EmulatedFunction  # noqa: E402
from support.local_cloud import LocalCloud  # noqa: E402
from support.tls import private_ca  # noqa: E402
from scale import rotated_at_once  # noqa: E402
from table import Row, plain, round_trips  # noqa: E402
from throttle import CORES, MEMORY_MB, PERIOD_US, Throttle  # noqa: E402

HERE = Path(__file__).resolve().parent
MINISTACK = ROOT / ".tools/ministack/bin/ministack"

COLD_STARTS = 25  # of each function
SLOW_COLD_STARTS = 7  # Python's take seconds each where the CPU is throttled
WARM = 20
LATENCY = 0.05  # seconds added to every call of the measurements with many targets
SCALE = (1, 10, 100, 1_000, 10_000)
COLD, SIZE, MEMORY = "cold start", "size, unzipped", "peak memory, after those rotations"
WARM_ROTATION = f"warm rotation, {new_environment.FARTHEST} ms away"
SLOW_CPU = f", {MEMORY_MB} MB's CPU"
ABOUT = f"""The functions run under Lambda's runtime interface emulator. AWS and Braintrust are servers on this machine.
With one target, all four hosts are called over TLS 1.3 at the stated round-trip time. Each connection's TCP handshake
also takes one round trip. A run in a new environment is the time from the event to the answer, including the start of
the process. Cold starts use the public root certificates only. Each figure is the median of {COLD_STARTS} cold starts
({SLOW_COLD_STARTS} of Python's where the CPU is throttled), {new_environment.RUNS} runs in new environments, or {WARM}
warm rotations. Memory is measured once. Each number of targets is also measured once: in a function's first rotation,
not counting its start, without TLS, and with {LATENCY * 1000:.0f} ms added to every call."""


def named(count):
    return f"{count:,} target{'s' if count > 1 else ''}"


def warm_rotation(distance, subject):
    """The milliseconds of a warm rotation, the number of its round trips in sequence, and the peak memory in MB."""
    with EmulatedFunction(subject.bootstrap, subject.environment) as function:
        functions.rotate(function)
        warm = statistics.median(functions.rotate(function).seconds for _ in range(WARM)) * 1000
        distance.crossings.clear()
        functions.rotate(function)
        return warm, len(sequence(distance.crossings)), functions.peak_kilobytes(function) / 1024


def compared(distance, subjects):
    nothing, ours, by_hand = subjects
    idle, cold, python = functions.cold_starts(subjects, COLD_STARTS)
    yield Row(COLD, "ms", cold, python, idle, f"{cold / idle:.2f} times do nothing (at most 1.5)")
    packages = f"Python: {', '.join(functions.boto3_bytes()[1])}, from Lambda's runtime or deployed with the function"
    yield Row(SIZE, "MB", ours.megabytes, by_hand.megabytes, nothing.megabytes, f"at most 4.5 MB. {packages}")
    (_, _, idle), (warm, trips, memory), (python, python_trips, python_memory) = [
        warm_rotation(distance, subject) for subject in subjects
    ]
    remark = f"{trips} round trips in sequence, the probe's among them; Python: {python_trips}, without a probe"
    yield Row(WARM_ROTATION, "ms", warm, python, remark=remark)
    yield Row(MEMORY, "MB", memory, python_memory, idle, "at most 8 MB")


def throttled(distance, subjects):
    with Throttle() as throttle:
        if throttle.missing:
            yield Row(COLD + SLOW_CPU, "ms", None, remark=throttle.missing)
            return

        def bootstrap_of(subject):
            return throttle.bootstrap(subject.bootstrap)

        nothing, ours, by_hand = subjects
        idle, cold = functions.cold_starts((nothing, ours), COLD_STARTS, bootstrap_of)
        [python] = functions.cold_starts((by_hand,), SLOW_COLD_STARTS, bootstrap_of)
        quota = f"{CORES:.3f} of a core, in periods of {PERIOD_US / 1000:.0f} ms"
        yield Row(COLD + SLOW_CPU, "ms", cold, python, idle, f"{quota}; Lambda may allow more while a function starts")
        for milliseconds in new_environment.MILLISECONDS:
            runs = new_environment.first_runs(distance, milliseconds, subjects, bootstrap_of)
            yield new_environment.row(milliseconds, runs, SLOW_CPU)


def measure(stack, distance, ca_bundle, nothing, rounds):
    """Yields the rows, and adds the round trips of the two functions that rotate to `rounds`."""
    subjects = functions.subjects(stack, distance, ca_bundle, nothing)
    for milliseconds in new_environment.MILLISECONDS:
        runs = new_environment.first_runs(distance, milliseconds, subjects)
        yield new_environment.row(milliseconds, runs)
    # The last runs are those at the longest distance, where the time to compute matters least.
    rounds += [run.rounds for run in runs[1:]]
    yield from compared(distance, subjects)
    yield from throttled(distance, subjects)
    for server in (stack.aws, stack.braintrust):
        server.latency = LATENCY
    for count in SCALE:
        yield from rotated_at_once(stack, count, named(count))


def pictures():
    farthest, fewest = new_environment.FARTHEST, new_environment.FEWEST
    first = (f"{fewest} round trips", fewest * farthest)
    title = f"A run in a new environment, {farthest} ms away"
    yield results.Bars("new_environment.svg", title, of_each_cpu(new_environment.named(farthest)), first)
    yield results.Bars("cold_start.svg", "Cold start", of_each_cpu(COLD))


def of_each_cpu(what):
    """The names of the rows with this figure, by the titles of their panels in a picture."""
    return {"A whole core": what, f"The CPU of {MEMORY_MB} MB: {CORES:.3f} of a core": what + SLOW_CPU}


def main():
    [arch] = sys.argv[1:]
    environment.prepare()
    step.exit_on_signals()
    nothing = functions.do_nothing(arch)
    rows, rounds = [], []
    print(plain())
    with tempfile.TemporaryDirectory() as directory, LocalCloud(MINISTACK) as stack:
        certificate, ca_bundle = private_ca(Path(directory), *functions.ADDRESSES)
        with Distance(certificate) as distance:
            for row in measure(stack, distance, ca_bundle, nothing, rounds):
                print(plain(row), flush=True)
                rows.append(row)
    print(round_trips(rounds))
    results.write(HERE, rows, rounds, ABOUT, pictures(), scale={count: named(count) for count in SCALE})


if __name__ == "__main__":
    main()
