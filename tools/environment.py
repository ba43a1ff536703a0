"""Sets the environment variables that every command of `make` needs."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
AWS_SETTINGS = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL",
)


def prepare(aws_account=False):
    """Hides the caller's AWS account, unless the command works on what is deployed there."""
    tools = [str(ROOT / ".tools/sam/bin"), str(ROOT / ".tools/cargo/bin")]
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join(tools + [folder for folder in path if folder not in tools])
    # cargo, and the cargo-lambda that `sam build` starts, share one folder whatever the caller's settings are.
    os.environ["CARGO_TARGET_DIR"] = str(ROOT / "target")
    os.environ["SAM_CLI_TELEMETRY"] = "0"
    if not aws_account:
        _hide_aws_account()


def _hide_aws_account():
    for name in AWS_SETTINGS:
        os.environ.pop(name, None)
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
