"""The template, deployed by sam into a local AWS that enforces IAM and signatures, rotates every kind."""

import json
import shlex
import time
import uuid

import pytest
from botocore.exceptions import ClientError
from support.deployed_function import all_succeeded, execution_policy, rotate_by_secrets_manager, rotate_deployed
from support.deployment import invoke
from support.kinds import KINDS, USER_BASED
from support.local_iam import ACCOUNT
from support.upstream import form
from support.world import OLD_METADATA

STATEMENTS = {
    "temporary": {"AssumeTheBedrockRole"},
    "access_key": {"RotateAccessKeys", "TellWhatIsAllowed", "StageTheCredentials"},
    "short_term_api_key": {"AssumeTheBedrockRole"},
    "long_term_api_key": {"CreateApiKeysThatExpire", "RetireApiKeys", "TellWhatIsAllowed", "StageTheCredentials"},
}


# Permissions that Lambda itself uses on behalf of the function.
OF_LAMBDA = {"WriteItsOwnLogs", "KeepWhatFailed"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_schedule_rotates_each_kind(world, deployed, kind):
    ai_secret = world.new_ai_secret()
    outputs = deployed(ai_secret, by_sam=True, Kind=kind)
    assert set(execution_policy(world, outputs)) == {"ReadTheBraintrustApiKey", *OF_LAMBDA, *STATEMENTS[kind]}
    target = rotate_deployed(world, outputs)
    assert (target["outcome"], target["kind"]) == ("rotated", kind)
    assert world.has_working_credentials(ai_secret)
    if kind in USER_BASED:
        assert "BedrockRoleArn" not in outputs
        staged = world.staged_value({"secret_id": outputs["StagedSecretArn"]})
        assert list(world.iam_keys({"kind": kind, "user_name": outputs["IamUserName"]})) == [staged["credential_id"]]
        assert rotate_deployed(world, outputs)["outcome"] == "not_due"
    else:
        assert "IamUserName" not in outputs and "StagedSecretArn" not in outputs
        [request] = world.aws_requests("sts:AssumeRole")
        assert form(request)["RoleArn"] == outputs["BedrockRoleArn"]
        role = world.client("iam").get_role(RoleName=outputs["BedrockRoleArn"].rpartition("/")[2])["Role"]
        [trusted] = role["AssumeRolePolicyDocument"]["Statement"]
        assert trusted["Principal"] == {"AWS": outputs["ExecutionRoleArn"]}


@pytest.mark.parametrize("kind", KINDS)
def test_secrets_manager_rotates_each_kind(world, deployed, kind):
    ai_secret = world.new_ai_secret()
    outputs = deployed(ai_secret, Kind=kind, StageCredentials="true")
    steps = rotate_by_secrets_manager(world, outputs, outputs["StagedSecretArn"])
    assert all_succeeded(steps), steps
    assert world.has_working_credentials(ai_secret)
    staged = world.staged_value({"secret_id": outputs["StagedSecretArn"]})
    assert (staged["kind"], staged["credential_id"]) == (kind, steps[-1].body["targets"][0]["credential_id"])
    assert rotate_deployed(world, outputs)["outcome"] == "left_to_secrets_manager"


@pytest.mark.parametrize("kind", USER_BASED)
def test_secrets_manager_rotates_by_itself_after_rotationdays(world, deployed, kind):
    ai_secret = world.new_ai_secret()
    outputs = deployed(ai_secret, Kind=kind, RotationDays="7")
    steps = world.aws.wait_for_rotation(outputs["StagedSecretArn"])
    assert all_succeeded(steps), steps
    assert world.has_working_credentials(ai_secret)
    secret = world.client("secretsmanager").describe_secret(SecretId=outputs["StagedSecretArn"])
    assert (secret["RotationEnabled"], secret["RotationRules"]) == (True, {"AutomaticallyAfterDays": 7})
    assert rotate_deployed(world, outputs)["outcome"] == "left_to_secrets_manager"


# The outputs that are commands of the AWS CLI, and the actions that they send.
COMMANDS = {
    "InvokeCommand": "rotate",
    "ForceCommand": "rotate",
    "StatusCommand": "status",
    "CheckCommand": "check",
    "InventoryCommand": "inventory",
}


def test_the_function_answers_each_command_in_the_outputs(world, deployed):
    outputs = deployed(world.new_ai_secret())
    for name, action in COMMANDS.items():
        words = shlex.split(outputs[name])
        options = dict(zip(words, words[1:], strict=False))
        assert json.loads(options["--payload"])["action"] == action
        answer, failed = invoke(world.cloud, options["--function-name"], options["--payload"])
        assert not failed, answer
        assert action == "rotate" or (answer["action"], answer["ok"]) == (action, True), answer


def test_rotating_the_api_key_is_allowed_only_on_request(world, deployed):
    account = str(uuid.uuid4())
    id, key = world.braintrust.add_service_token(account, orgs=("Acme",), name="rotator", owner=True)
    secret = world.cloud.new_secret({"api_key": key, "service_token_id": id, "service_account_id": account})
    ai_secret = world.new_ai_secret()
    outputs = deployed(ai_secret, BraintrustApiKey=None, BraintrustApiKeySecretArn=secret, RotateApiKey="true")
    assert execution_policy(world, outputs)["RotateTheBraintrustApiKey"]["Resource"] == secret
    assert rotate_deployed(world, outputs)["outcome"] == "rotated"
    steps = rotate_by_secrets_manager(world, outputs, secret)
    assert all_succeeded(steps), steps
    staged = world.staged_value({"secret_id": secret})
    assert staged["api_key"] != key and staged["service_account_id"] == account
    assert staged["service_token_id"] in world.braintrust.service_tokens
    # The function still has the old key in memory, and must not depend on it.
    world.braintrust.remove_key(key)
    assert rotate_deployed(world, outputs)["outcome"] == "rotated"
    assert world.has_working_credentials(ai_secret)


def test_secrets_manager_may_not_rotate_another_secret_with_this_function(world, deployed):
    outputs = deployed(world.new_ai_secret(), Kind="access_key")
    for secret in (world.new_staged_secret(), outputs["BraintrustApiKeySecretArn"]):
        with pytest.raises(ClientError, match="cannot invoke the specified Lambda function"):
            rotate_by_secrets_manager(world, outputs, secret)
    policy = world.client("lambda").get_policy(FunctionName=outputs["FunctionName"])["Policy"]
    statements = json.loads(policy)["Statement"]
    [statement] = [found for found in statements if found["Principal"] == {"Service": "secretsmanager.amazonaws.com"}]
    # The local AWS has no other account to call from.
    assert statement["Condition"]["StringEquals"] == {"AWS:SourceAccount": ACCOUNT}


@pytest.mark.long
def test_the_deployed_schedule_fires(world, deployed):
    ai_secret = world.new_ai_secret()
    deployed(ai_secret, ScheduleExpression="rate(1 minute)")
    until = time.monotonic() + 100
    while world.braintrust.ai_secrets[ai_secret]["metadata"] == OLD_METADATA:
        assert time.monotonic() < until, "the schedule did not fire"
        time.sleep(0.5)
    assert world.has_working_credentials(ai_secret)
