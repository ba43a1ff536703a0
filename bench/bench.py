"""Measures the function under Lambda's runtime interface emulator and prints one table; nothing here passes or fails."""

import json
import os
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]

import step  # noqa: E402
from local.function import Function  # noqa: E402
from local.stack import Stack  # noqa: E402

BOOTSTRAP = ROOT / ".aws-sam/build/RotatorFunction/bootstrap"
MINISTACK = ROOT / ".tools/ministack/bin/ministack"

COLD_STARTS = 25  # each; the two functions take turns, so that the machine's moods meet both
WARM = 20
LATENCY = 0.05  # seconds added to every upstream call
MANY = 1_000


def do_nothing():
    """The function that does nothing, built with the same profile and linker as the real one."""
    target = "x86_64-unknown-linux-gnu"
    environment = {**os.environ, "RUSTUP": "none", "CARGO_BUILD_TARGET": target}
    # cargo-lambda asks rustup for the target, which is there already.
    command = ["cargo", "lambda", "build", "--release", "--example", "do_nothing", "--locked"]
    step.run("build the function that does nothing", command, environment)
    return ROOT / "target" / "lambda" / "do_nothing" / "bootstrap"


def peak_kilobytes(function):
    """The most memory that the function's process ever had resident."""
    for line in Path(f"/proc/{function.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise RuntimeError("the kernel tells no VmHWM")


def cold_start(bootstrap, environment):
    """Milliseconds from the start of the process to its first request for work."""
    function = Function(bootstrap, environment)
    try:
        function.invoke({"action": "rotate", "targets": ["nobody"]})
        return function.init_ms
    finally:
        function.stop()


def targets(stack, count):
    """Targets with one role and an ai_secret each."""
    role = stack.role()
    ids = [stack.braintrust.add_ai_secret(f"secret {n}", metadata={"access_key": "ASIAOLD"}) for n in range(count)]
    return [
        {
            "name": f"target-{n}",
            "kind": "temporary",
            "role_arn": role,
            "region": "us-east-1",
            "ai_secrets": [{"id": ai_secret}],
        }
        for n, ai_secret in enumerate(ids)
    ]


def rotate(function):
    """One tick: its report and its seconds."""
    started = time.monotonic()
    result = function.invoke({"action": "rotate"})
    seconds = time.monotonic() - started
    if not result.ok:
        sys.exit(f"the rotation failed: {str(result.body)[:2000]}")
    return result.body, seconds


def measure(stack, nothing):
    one = stack.environment(targets(stack, 1))
    pairs = [(cold_start(nothing, one), cold_start(BOOTSTRAP, one)) for _ in range(COLD_STARTS)]
    idle, cold = (statistics.median(column) for column in zip(*pairs))
    yield "cold start, do nothing", f"{idle:.2f} ms", ""
    yield "cold start", f"{cold:.2f} ms", f"{cold / idle:.2f} x (at most 2)"
    yield "binary, do nothing", f"{nothing.stat().st_size / 1e6:.2f} MB", ""
    yield "binary", f"{BOOTSTRAP.stat().st_size / 1e6:.2f} MB", "at most 5 MB"

    function = Function(BOOTSTRAP, one)
    try:
        for server in (stack.aws, stack.braintrust):
            server.latency = LATENCY
        first, _ = rotate(function)
        warm = statistics.median(rotate(function)[0]["duration_ms"] for _ in range(WARM))
        yield "first rotation, 50 ms a call", f"{first['duration_ms']} ms", "with the API key's reading"
        yield "warm rotation, 50 ms a call", f"{warm:.0f} ms", f"{warm / (LATENCY * 1000):.2f} calls one after another"
        yield "peak memory, 1 target", f"{peak_kilobytes(function) / 1024:.1f} MB", "at most 12 MB"
    finally:
        function.stop()

    many = targets(stack, MANY)
    secret = stack.secret(json.dumps(many))
    function = Function(BOOTSTRAP, stack.environment([], TARGETS="", TARGETS_SECRET_ID=secret), timeout=900)
    try:
        report, seconds = rotate(function)
        rotated = sum(target["outcome"] == "rotated" for target in report["targets"])
        yield f"{rotated} targets, 50 ms a call", f"{seconds:.1f} s", f"{seconds / MANY * 1000:.1f} ms a target"
        yield f"peak memory, {MANY} targets", f"{peak_kilobytes(function) / 1024:.1f} MB", ""
    finally:
        function.stop()


def main():
    step.exit_on_signals()
    nothing = do_nothing()
    with Stack(MINISTACK) as stack:
        for what, figure, remark in measure(stack, nothing):
            print(f"  {what:32} {figure:>12}  {remark}", flush=True)


if __name__ == "__main__":
    main()
