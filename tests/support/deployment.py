"""Deploys the built template into the local AWS."""

import io
import json
import os
import re
import sys
import uuid
import zipfile
from pathlib import Path

from .local_cloud import REGION, LocalCloud
from .paths import BOOTSTRAP

# The name of the bucket that sam creates. Its own bucket refuses requests without TLS, which the local AWS lacks.
_BUCKET = "aws-sam-cli-managed-default-artifacts"
_CAPABILITIES = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
_SOON = {"Delay": 0.2, "MaxAttempts": 300}


def deploy(
    cloud: LocalCloud, template: Path, name: str, parameters: dict[str, str], run, caller: dict[str, str] | None = None
) -> dict[str, str]:
    """Deploys with `sam deploy`, as one would into AWS, and returns the stack's outputs.

    `run(command, environment)` runs sam, and raises if it fails.
    """
    cloud.client("s3").create_bucket(Bucket=_BUCKET)
    # Keeps out the caller's AWS: its variables, its profiles, and a samconfig.toml's default environment.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= (caller or cloud.ministack.root) | {
        "AWS_ENDPOINT_URL": cloud.aws.url,
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "SAM_CLI_TELEMETRY": "0",
        "SAM_CLI_POLL_DELAY": "0.2",  # the default of 5 seconds suits the real CloudFormation
    }
    command = [
        str(Path(sys.executable).with_name("sam")), "deploy",
        "--config-env", "local",
        "--stack-name", name,
        "--template-file", str(template),
        "--s3-bucket", _BUCKET,
        "--s3-prefix", "bedrock-braintrust-rotator",
        "--region", REGION,
        "--capabilities", "CAPABILITY_IAM",
        "--no-confirm-changeset",
        "--no-progressbar",
        # sam splits each override at its spaces, unless they are in quotes.
        "--parameter-overrides", *(f'{name}="{_quoted(value)}"' for name, value in parameters.items()),
    ]  # fmt: skip
    run(command, environment)
    return _outputs(cloud, name)


def deploy_directly(cloud: LocalCloud, template: Path, name: str, parameters: dict[str, str]) -> dict[str, str]:
    """Deploys the template, built or not, and BOOTSTRAP, with the CloudFormation calls of `sam deploy`.

    sam itself takes seconds to start.
    """
    change = {"StackName": name, "ChangeSetName": "create"}
    create_change_set(cloud, template, parameters, **change)
    return _create(cloud, change)


def deploy_bundle(cloud: LocalCloud, bundle: Path, arch: str, name: str, parameters: dict[str, str]) -> dict[str, str]:
    """Deploys a release bundle, whose template needs no transform."""
    s3, key = cloud.client("s3"), f"{uuid.uuid4().hex}.zip"
    s3.create_bucket(Bucket=_BUCKET)
    s3.put_object(Bucket=_BUCKET, Key=key, Body=(bundle / f"bedrock-braintrust-rotator-{arch}.zip").read_bytes())
    code = {"CodeBucket": _BUCKET, "CodeKey": key, "Architecture": arch}
    change = {"StackName": name, "ChangeSetName": "create"}
    _create_change_set(
        cloud, (bundle / "cloudformation.json").read_text(), parameters | code, ["CAPABILITY_IAM"], **change
    )
    return _create(cloud, change)


def _create(cloud, change):
    client = cloud.client("cloudformation")
    client.get_waiter("change_set_create_complete").wait(**change, WaiterConfig=_SOON)
    client.execute_change_set(**change)
    client.get_waiter("stack_create_complete").wait(StackName=change["StackName"], WaiterConfig=_SOON)
    return _outputs(cloud, change["StackName"])


def create_change_set(cloud: LocalCloud, template: Path, parameters: dict[str, str], **change):
    s3, prefix = cloud.client("s3"), uuid.uuid4().hex
    s3.create_bucket(Bucket=_BUCKET)
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.write(BOOTSTRAP, "bootstrap")
    s3.put_object(Bucket=_BUCKET, Key=f"{prefix}/code.zip", Body=code.getvalue())
    body = re.sub("(?<=CodeUri: ).+", f"s3://{_BUCKET}/{prefix}/code.zip", template.read_text())
    _create_change_set(cloud, body, parameters, _CAPABILITIES, **change)


def _create_change_set(cloud, body, parameters, capabilities, **change):
    # The template is in S3 because it is too long for a request.
    key = f"{uuid.uuid4().hex}/template"
    cloud.client("s3").put_object(Bucket=_BUCKET, Key=key, Body=body)
    cloud.client("cloudformation").create_change_set(
        **change,
        ChangeSetType="CREATE",
        Capabilities=capabilities,
        TemplateURL=f"https://s3.us-east-1.amazonaws.com/{_BUCKET}/{key}",
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
    )


def invoke(cloud: LocalCloud, function: str, event: bytes | str):
    """The deployed function's answer (for an error: the report in it, or its text), and whether it failed."""
    answer = cloud.client("lambda").invoke(FunctionName=function, Payload=event)
    return report_of(json.loads(answer["Payload"].read())), "FunctionError" in answer


def report_of(answer):
    """A function's answer; for an error, the report in its message, or the message itself."""
    if not isinstance(answer, dict) or "errorMessage" not in answer:
        return answer
    try:
        return json.loads(answer["errorMessage"])
    except ValueError:
        return answer["errorMessage"]


def _quoted(value: str) -> str:
    return value.replace('"', '\\"')


def _outputs(cloud: LocalCloud, name: str) -> dict[str, str]:
    [deployed] = cloud.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in deployed["Outputs"]}
