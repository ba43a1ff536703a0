"""The three functions that are compared, and the measurements that apply to each of them."""

import re
import statistics
import sys
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import build
import step
from support.emulated_function import EmulatedFunction

ROOT = Path(__file__).resolve().parent.parent
BOOTSTRAP = ROOT / ".aws-sam/build/RotatorFunction/bootstrap"
BY_HAND = ROOT / "bench/by_hand/bootstrap"


@dataclass(frozen=True)
class Subject:
    name: str
    bootstrap: Path
    environment: dict[str, str]
    megabytes: float


def do_nothing(arch):
    """Builds the function that does nothing, with the same profile, linker and flags as the real one."""
    command = [*build.CARGO_LAMBDA, "--example", "do_nothing", "--features", "bench"]
    step.run("build the function that does nothing", command, build.variables(arch))
    return ROOT / "target" / "lambda" / "do_nothing" / "bootstrap"


def boto3_bytes():
    """The size of boto3 and all of its dependencies, unzipped and without compiled files, and their names."""
    sizes, queue = {}, ["boto3"]
    while queue:
        package = distribution(queue.pop())
        if package.name in sizes:
            continue
        files = [file for file in package.files or [] if not file.name.endswith(".pyc")]
        sizes[package.name] = sum(Path(file.locate()).stat().st_size for file in files)
        needed = [requirement for requirement in package.requires or [] if "extra ==" not in requirement]
        queue += [re.match(r"[\w.-]+", requirement)[0] for requirement in needed]
    return sum(sizes.values()), sorted(sizes)


def peak_kilobytes(function):
    """The most resident memory that the function's process has ever had."""
    for line in Path(f"/proc/{function.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise RuntimeError("/proc/<pid>/status has no VmHWM")


def own_bootstrap(subject):
    return subject.bootstrap


def cold_start(subject, bootstrap):
    """The milliseconds from the start of the process to its first request for an invocation."""
    environment = {name: value for name, value in subject.environment.items() if name != "BRAINTRUST_CA_BUNDLE"}
    with EmulatedFunction(bootstrap, environment) as function:
        function.invoke({"action": "rotate", "targets": ["nobody"]})
        return function.init_ms


def cold_starts(subjects, times, bootstrap_of=own_bootstrap):
    """The median of each function. They take turns, so that changes in the machine's load affect all of them alike."""
    rounds = [[cold_start(subject, bootstrap_of(subject)) for subject in subjects] for _ in range(times)]
    return [statistics.median(column) for column in zip(*rounds)]


def rotate(function):
    """Returns the answer to one rotation, and its milliseconds, not counting the function's start."""
    is_first = function.pid is None
    result = function.invoke({"action": "rotate"})
    if not result.ok:
        sys.exit(f"The rotation failed: {str(result.body)[:2000]}")
    return result, result.seconds * 1000 - (function.init_ms if is_first else 0)


def targets(stack, braintrust, count):
    """Targets that share a role and have an ai_secret each."""
    role = stack.new_role()
    ids = [braintrust.add_ai_secret(f"secret {n}", metadata={"access_key": "ASIAOLD"}) for n in range(count)]
    shared = {"kind": "temporary", "role_arn": role, "region": "us-east-1"}
    return [{"name": f"target-{n}", **shared, "ai_secrets": [{"id": id}]} for n, id in enumerate(ids)]


def subjects(stack, braintrust, bundle, nothing):
    """The three functions, each with one target, whose Braintrust is called over TLS."""
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
