"""A function that was deployed into the local AWS, named by the outputs of its stack."""

import json
import subprocess

from .deployment import invoke
from .local_rotation import ROTATION_STEPS, CalledStep
from .paths import ROOT
from .world import World

SCHEDULED_EVENT = (ROOT / "events/schedule.json").read_text()
FORCED_EVENT = json.dumps({"action": "rotate", "force": True})


def run_command(command, environment):
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def parameters_of(world: World, ai_secret: str | None, changed: dict) -> dict:
    """The parameters of a stack for this ai_secret; a parameter that is None is left out."""
    parameters = {
        "BraintrustApiKey": world.api_key,
        "BraintrustApiUrl": world.braintrust.url,
        "AiSecretId": ai_secret,
        **changed,
    }
    return {name: value for name, value in parameters.items() if value is not None}


def rotate_deployed(world: World, outputs: dict, event: str = SCHEDULED_EVENT) -> dict:
    """The report on the one target, for an event that must succeed."""
    report, failed = invoke(world.cloud, outputs["FunctionName"], event)
    assert not failed, report
    return report["targets"][0]


def refused_call(world: World, outputs: dict, event: str = SCHEDULED_EVENT) -> str:
    """The call that the one target's rotation is not allowed to make."""
    report, failed = invoke(world.cloud, outputs["FunctionName"], event)
    assert failed, report
    error = report["targets"][0]["error"]
    assert error["class"] == "permission", error
    return f"{error['service'].replace('_', '')}:{error['call']}"


def rotate_by_secrets_manager(world: World, outputs: dict, secret: str) -> list[CalledStep]:
    """The steps of a rotation that Secrets Manager begins."""
    world.client("secretsmanager").rotate_secret(
        SecretId=secret, RotationLambdaARN=outputs["FunctionArn"], RotationRules={"AutomaticallyAfterDays": 30}
    )
    return world.aws.wait_for_rotation(secret)


def all_succeeded(steps: list[CalledStep]) -> bool:
    return [(step.name, step.ok) for step in steps] == [(name, True) for name in ROTATION_STEPS]


def execution_policy(world: World, outputs: dict) -> dict[str, dict]:
    """The statements of the function's role, by their Sid."""
    document = world.client("iam").get_role_policy(
        RoleName=outputs["ExecutionRoleArn"].rpartition("/")[2], PolicyName="rotate"
    )["PolicyDocument"]
    return {statement["Sid"]: statement for statement in document["Statement"]}


def set_execution_policy(world: World, outputs: dict, statements: dict[str, dict]):
    world.client("iam").put_role_policy(
        RoleName=outputs["ExecutionRoleArn"].rpartition("/")[2],
        PolicyName="rotate",
        PolicyDocument=document_of(statements),
    )


def document_of(statements: dict[str, dict]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements.values())})


def variables_of(world: World, outputs: dict) -> dict[str, str]:
    function = world.client("lambda").get_function_configuration(FunctionName=outputs["FunctionName"])
    return function["Environment"]["Variables"]


def change_target(world: World, outputs: dict, **fields):
    """Gives other fields to the function's one target."""
    changed = variables_of(world, outputs)
    [target] = json.loads(changed["TARGETS"])
    changed["TARGETS"] = json.dumps([target | fields])
    world.client("lambda").update_function_configuration(
        FunctionName=outputs["FunctionName"], Environment={"Variables": changed}
    )
