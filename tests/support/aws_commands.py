"""Checks commands of the AWS CLI against AWS's own models, without a call."""

import json
import shlex

import botocore.session
from botocore import xform_name
from botocore.exceptions import UnknownServiceError

_OF_EVERY_COMMAND = {"--region", "--profile", "--query", "--output", "--endpoint-url", "--no-cli-pager"}
_OF_EVERY_COMMAND |= {"--cli-binary-format", "--cli-read-timeout", "--cli-input-json"}
# What the AWS CLI adds to the operations of the API.
_OF_THE_CLI = {
    ("cloudformation", "deploy"): {
        "--template-file",
        "--stack-name",
        "--capabilities",
        "--parameter-overrides",
        "--s3-bucket",
    },
    ("logs", "tail"): {"--follow", "--since", "--format"},
    ("s3", "cp"): set(),
    ("sso", "login"): set(),
}
_SESSION = botocore.session.get_session()


def problems(command: str) -> list[str]:
    """What is wrong with a command, which may have placeholders such as <FunctionArn>."""
    _, service, operation, *arguments = shlex.split(command)
    given = {argument.split("=")[0] for argument in arguments if argument.startswith("--")}
    if (service, operation) in _OF_THE_CLI:
        accepted, required = _OF_THE_CLI[service, operation], set()
    else:
        try:
            # The AWS CLI calls the API of S3 s3api, because s3 has commands of its own.
            model = _SESSION.get_service_model("s3" if service == "s3api" else service)
        except UnknownServiceError:
            return [f"there is no service {service}"]
        names = {xform_name(name, "-"): name for name in model.operation_names}
        if operation not in names:
            return [f"{service} has no operation {operation}"]
        operation_model = model.operation_model(names[operation])
        shape, made_by_the_cli = operation_model.input_shape, set(operation_model.idempotent_members)
        accepted = {f"--{xform_name(member, '-')}" for member in shape.members} if shape else set()
        needed = set(shape.required_members) - made_by_the_cli if shape else set()
        required = {f"--{xform_name(member, '-')}" for member in needed}
    unknown = sorted(given - accepted - _OF_EVERY_COMMAND)
    # Without any argument, it is the name of a command in a sentence.
    missing = sorted(required - given) if arguments else []
    found = [f"{operation} has no option {option}" for option in unknown]
    found += [f"{operation} needs the option {option}" for option in missing]
    return found + [f"not JSON: {text}" for text in arguments if text[0] in "{[" and not _is_json(text)]


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
