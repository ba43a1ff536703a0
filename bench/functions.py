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
from support.targets_object import TargetsObject

ROOT = Path(__file__).resolve().parent.parent
BOOTSTRAP = ROOT / ".aws-sam/build/RotatorFunction/bootstrap"
BY_HAND = ROOT / "bench/by_hand/bootstrap"
# The endpoint variable of each service of AWS, with the service's name, and its address when it is at a distance.
AWS = {
    "AWS_ENDPOINT_URL_STS": ("STS", "127.0.0.2"),
    "AWS_ENDPOINT_URL_SECRETS_MANAGER": ("Secrets Manager", "127.0.0.3"),
    "AWS_ENDPOINT_URL_BEDROCK": ("Bedrock", "127.0.0.4"),
}
BRAINTRUST = ("Braintrust", "127.0.0.5")
ADDRESSES = [address for _, address in (*AWS.values(), BRAINTRUST)]
CA_BUNDLES = ("AWS_CA_BUNDLE", "BRAINTRUST_CA_BUNDLE")


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
    environment = {name: value for name, value in subject.environment.items() if name not in CA_BUNDLES}
    with EmulatedFunction(bootstrap, environment) as function:
        function.invoke({"action": "rotate", "targets": ["nobody"]})
        return function.init_ms


def cold_starts(subjects, times, bootstrap_of=own_bootstrap):
    """The median of each function. They take turns, so that changes in the machine's load affect all of them alike."""
    rounds = [[cold_start(subject, bootstrap_of(subject)) for subject in subjects] for _ in range(times)]
    return [statistics.median(column) for column in zip(*rounds)]


def rotate(function):
    result = function.invoke({"action": "rotate"})
    if not result.ok:
        sys.exit(f"The rotation failed: {str(result.body)[:2000]}")
    return result


def targets(stack, count):
    """Targets that share a role and have an ai_secret each."""
    role, add = stack.new_role(), stack.braintrust.add_ai_secret
    ids = [add(f"secret {n}", metadata={"access_key": "ASIAOLD"}) for n in range(count)]
    shared = {"kind": "temporary", "role_arn": role, "region": "us-east-1"}
    return [{"name": f"target-{n}", **shared, "ai_secrets": [{"id": id}]} for n, id in enumerate(ids)]


def listed_targets(stack, count):
    """The environment of a function that reads so many targets from S3."""
    listed = TargetsObject(stack)
    listed.put(targets(stack, count))
    return stack.environment([], **listed.variables)


def subjects(stack, distance, ca_bundle, nothing):
    """The three functions, each with one target. All services are called over TLS."""
    endpoints = {name: distance.place(*place, stack.aws.port) for name, place in AWS.items()}
    endpoints["BRAINTRUST_API_URL"] = distance.place(*BRAINTRUST, stack.braintrust.port)
    one = targets(stack, 1)
    environment = stack.environment(one, **endpoints, **dict.fromkeys(CA_BUNDLES, str(ca_bundle)))
    stack.braintrust.add_ai_secret("by-hand", metadata={})
    by_hand = {"AI_SECRET_NAME": "by-hand", "ROLE_ARN": one[0]["role_arn"], "BY_HAND_PYTHON": sys.executable}
    size, _ = boto3_bytes()
    return [
        Subject("do nothing", nothing, environment, nothing.stat().st_size / 1e6),
        Subject("this function", BOOTSTRAP, environment, BOOTSTRAP.stat().st_size / 1e6),
        Subject("Python, boto3", BY_HAND, {**environment, **by_hand}, size / 1e6),
    ]
