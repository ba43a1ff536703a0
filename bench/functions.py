"""The functions that are compared, and what can be measured of any of them."""

import re
import statistics
import sys
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import step
from support.function import Function

ROOT = Path(__file__).resolve().parent.parent
BOOTSTRAP = ROOT / ".aws-sam/build/RotatorFunction/bootstrap"
BY_HAND = ROOT / "bench/by_hand/bootstrap"


@dataclass(frozen=True)
class Subject:
    """One of them, with its environment."""

    name: str
    bootstrap: Path
    environment: dict[str, str]
    megabytes: float


def do_nothing():
    """The function that does nothing, built with the same profile, linker and flags (`make` sets them) as the real one."""
    command = ["cargo", "lambda", "build", "--release", "--example", "do_nothing", "--locked"]
    step.run("build the function that does nothing", command)
    return ROOT / "target" / "lambda" / "do_nothing" / "bootstrap"


def boto3_bytes():
    """What boto3 and all that it needs take unzipped, without compiled files."""
    found, queue = {}, ["boto3"]
    while queue:
        package = distribution(queue.pop())
        if package.name in found:
            continue
        files = [file for file in package.files or [] if not file.name.endswith(".pyc")]
        found[package.name] = sum(Path(file.locate()).stat().st_size for file in files)
        needed = [requirement for requirement in package.requires or [] if "extra ==" not in requirement]
        queue += [re.match(r"[\w.-]+", requirement)[0] for requirement in needed]
    return sum(found.values()), sorted(found)


def peak_kilobytes(function):
    """The most memory that the function's process ever had resident."""
    for line in Path(f"/proc/{function.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise RuntimeError("the kernel tells no VmHWM")


def own_bootstrap(subject):
    return subject.bootstrap


def cold_start(subject, bootstrap):
    """Milliseconds from the start of the process to its first request for work."""
    environment = {name: value for name, value in subject.environment.items() if name != "BRAINTRUST_CA_BUNDLE"}
    with Function(bootstrap, environment) as function:
        function.invoke({"action": "rotate", "targets": ["nobody"]})
        return function.init_ms


def cold_starts(subjects, times, bootstrap_of=own_bootstrap):
    """The median of each; they take turns, so that the machine's moods meet all."""
    rounds = [[cold_start(subject, bootstrap_of(subject)) for subject in subjects] for _ in range(times)]
    return [statistics.median(column) for column in zip(*rounds)]


def rotate(function):
    """One tick: its answer and its milliseconds without the start that the first one waits for."""
    is_first = function.pid is None
    result = function.invoke({"action": "rotate"})
    if not result.ok:
        sys.exit(f"the rotation failed: {str(result.body)[:2000]}")
    return result, result.seconds * 1000 - (function.init_ms if is_first else 0)


def targets(stack, braintrust, count):
    """Targets with one role and an ai_secret each."""
    role = stack.role()
    ids = [braintrust.add_ai_secret(f"secret {n}", metadata={"access_key": "ASIAOLD"}) for n in range(count)]
    shared = {"kind": "temporary", "role_arn": role, "region": "us-east-1"}
    return [{"name": f"target-{n}", **shared, "ai_secrets": [{"id": id}]} for n, id in enumerate(ids)]


def subjects(stack, braintrust, bundle, nothing):
    """The three, each with one target at a Braintrust that is called over TLS."""
    over_tls = {"BRAINTRUST_API_URL": braintrust.url, "BRAINTRUST_CA_BUNDLE": str(bundle)}
    one = targets(stack, braintrust, 1)
    environment = stack.environment(one, **over_tls)
    braintrust.add_ai_secret("by-hand", metadata={})
    by_hand = {"AI_SECRET_NAME": "by-hand", "ROLE_ARN": one[0]["role_arn"], "BY_HAND_PYTHON": sys.executable}
    size, _ = boto3_bytes()
    return [
        Subject("do nothing", nothing, environment, nothing.stat().st_size / 1e6),
        Subject("this function", BOOTSTRAP, environment, BOOTSTRAP.stat().st_size / 1e6),
        Subject("Python, boto3", BY_HAND, {**environment, **by_hand}, size / 1e6),
    ]
