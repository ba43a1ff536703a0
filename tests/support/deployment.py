"""Deploys the built template into the local AWS with `sam deploy`, as one would into the real one."""

import json
import os
import sys
from pathlib import Path

from .stack import REGION, Stack

# As sam names the one that it makes. That one takes no requests without TLS, which the local AWS has not.
_BUCKET = "aws-sam-cli-managed-default-artifacts"


def deploy(
    stack: Stack, template: Path, name: str, parameters: dict[str, str], run, caller: dict[str, str] | None = None
) -> dict[str, str]:
    """The deployed stack's outputs; `run(command, environment)` runs sam and raises if it fails."""
    stack.client("s3").create_bucket(Bucket=_BUCKET)
    # Nothing of the caller's AWS may leak in: neither variables, profiles nor what `sam deploy --guided` saved
    # under samconfig.toml's default environment.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= (caller or stack.ministack.root) | {
        "AWS_ENDPOINT_URL": stack.aws.url,
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "SAM_CLI_TELEMETRY": "0",
        "SAM_CLI_POLL_DELAY": "0.2",  # seconds; the 5 by default are for the real CloudFormation
    }
    command = [str(Path(sys.executable).with_name("sam")), "deploy", "--config-env", "local", "--stack-name", name]
    command += ["--template-file", str(template), "--s3-bucket", _BUCKET, "--s3-prefix", "bedrock-braintrust-rotator", "--region", REGION, "--capabilities", "CAPABILITY_IAM"]
    command += ["--no-confirm-changeset", "--no-progressbar"]
    # In quotes, because sam splits each at its spaces.
    command += ["--parameter-overrides", *(f'{name}="{value}"' for name, value in parameters.items())]
    run(command, environment)
    [deployed] = stack.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in deployed["Outputs"]}


def invoke(stack: Stack, function: str, event: bytes | str):
    """The deployed function's answer, or the report (else the text) of its error, and whether it failed."""
    answer = stack.client("lambda").invoke(FunctionName=function, Payload=event)
    return report_of(json.loads(answer["Payload"].read())), "FunctionError" in answer


def report_of(answer):
    """A function's answer, or if that is an error, the report (else the text) in its message."""
    if not isinstance(answer, dict) or "errorMessage" not in answer:
        return answer
    try:
        return json.loads(answer["errorMessage"])
    except ValueError:
        return answer["errorMessage"]
