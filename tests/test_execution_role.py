"""The policies that the template creates allow what is needed, and nothing else."""

import json
import os
from unittest.mock import patch

import boto3
import pytest
from botocore.exceptions import ClientError
from support.deployed_function import (
    FORCED_EVENT,
    change_target,
    document_of,
    execution_policy,
    refused_call,
    rotate_deployed,
    set_execution_policy,
)
from support.deployment import invoke
from support.kinds import KINDS, ROLE_BASED, USER_BASED
from support.local_iam import ACCOUNT

# Permissions that Lambda itself uses on behalf of the function.
OF_LAMBDA = {"WriteItsOwnLogs", "KeepWhatFailed"}
# The local AWS looks for these in the trust policy of the role alone: see tests/test_bedrock_role.py.
OF_TRUST = {"sts:SetSourceIdentity", "sts:TagSession"}
# Permissions that no rotation needs.
OF_CHECK = {"TellWhatIsAllowed"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_function_needs_every_action_that_its_policy_allows(world, deployed, kind):
    ai_secret = world.new_ai_secret()
    # Without overlap, three scheduled runs create, deactivate and delete a key.
    outputs = deployed(ai_secret, Kind=kind, Overlap="0m", StageCredentials="true")
    whole = execution_policy(world, outputs)
    for name, statement in whole.items():
        assert statement["Resource"] == resource_of(name, outputs)
    # This one comes first, because a warm function doesn't read the API key again. The local Lambda's own calls need
    # no permission.
    for name in ["ReadTheBraintrustApiKey", *(set(whole) - {"ReadTheBraintrustApiKey", *OF_CHECK, *OF_LAMBDA})]:
        actions = whole[name]["Action"]
        for action in [actions] if isinstance(actions, str) else actions:
            if action in OF_TRUST:
                continue
            if action == "secretsmanager:PutSecretValue" and kind in ROLE_BASED:
                # A pending version would be resumed, which needs no PutSecretValue.
                set_execution_policy(world, outputs, whole)
                rotate_deployed(world, outputs, FORCED_EVENT)
            set_execution_policy(world, outputs, narrowed(whole, name, action))
            if action == "secretsmanager:PutSecretValue" and kind in ROLE_BASED:
                # Braintrust gets the credentials nevertheless, because the next run can make others.
                target = rotate_deployed(world, outputs, FORCED_EVENT)
                assert target["outcome"] == "rotated" and "PutSecretValue" in str(target["warnings"])
                assert world.has_working_credentials(ai_secret)
                continue
            assert first_refusal(world, outputs) == action, f"{action} was taken out of {name}"
            assert world.has_working_credentials(ai_secret) or world.patches() == []
    set_execution_policy(world, outputs, whole)
    rotate_deployed(world, outputs, FORCED_EVENT)


@pytest.mark.parametrize("kind", USER_BASED)
def test_check_and_status_of_a_deployed_function_succeed_and_check_needs_its_statement(world, deployed, kind):
    outputs = deployed(world.new_ai_secret(), Kind=kind)
    rotate_deployed(world, outputs)
    for action in ("status", "check"):
        answer, failed = invoke(world.cloud, outputs["FunctionName"], json.dumps({"action": action}))
        failed_lines = [line for line in answer["targets"][0].get("lines", []) if line["result"] == "failed"]
        assert not failed and answer["ok"], failed_lines
    [line] = [line for line in answer["targets"][0]["lines"] if "retire" in line["what"]]
    assert line["result"] == "ok", line
    whole = execution_policy(world, outputs)
    set_execution_policy(world, outputs, {name: s for name, s in whole.items() if name not in OF_CHECK})
    answer, _ = invoke(world.cloud, outputs["FunctionName"], json.dumps({"action": "check"}))
    [line] = [line for line in answer["targets"][0]["lines"] if "retire" in line["what"]]
    assert line["result"] == "unknown"


def resource_of(statement, outputs):
    """The only resource that a statement of the function's policy may name."""
    others = {
        "ReadTheBraintrustApiKey": outputs["BraintrustApiKeySecretArn"],
        "StageTheCredentials": outputs["StagedSecretArn"],
        "AssumeTheBedrockRole": outputs.get("BedrockRoleArn"),
        "KeepWhatFailed": outputs["FailureQueueArn"],
        "TellWhatIsAllowed": outputs["ExecutionRoleArn"],
        "WriteItsOwnLogs": f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:{outputs['LogGroupName']}:*",
    }
    return others.get(statement) or f"arn:aws:iam::{ACCOUNT}:user/{outputs['IamUserName']}"


def narrowed(statements, name, action):
    """The statements without one of the actions."""
    actions = statements[name]["Action"]
    rest = [] if isinstance(actions, str) else [other for other in actions if other != action]
    changed = {**statements, name: {**statements[name], "Action": rest}}
    return {name: statement for name, statement in changed.items() if statement["Action"]}


def first_refusal(world, outputs):
    """The first call that is refused during the life of a credential."""
    for _ in range(4):
        _, failed = invoke(world.cloud, outputs["FunctionName"], FORCED_EVENT)
        if failed:
            return refused_call(world, outputs, FORCED_EVENT)
    return None


@pytest.mark.parametrize("kind", KINDS)
def test_the_credentials_in_braintrust_need_every_statement_of_their_policy(world, deployed, kind):
    ai_secret = world.new_ai_secret()
    outputs = deployed(ai_secret, Kind=kind)
    policy = CredentialsPolicy(world, outputs)
    before = world.braintrust.snapshot()
    for statement in set(policy.statements) - {"InvokeModels"}:
        policy.set_without(statement)
        assert refused_call(world, outputs, FORCED_EVENT) == "bedrock:ListFoundationModels", statement
    assert world.braintrust.snapshot() == before
    policy.set_without("InvokeModels")
    rotate_deployed(world, outputs, FORCED_EVENT)
    assert refused_inference(world, ai_secret) == "AccessDeniedException"
    policy.set_without(None)
    assert refused_inference(world, ai_secret) is None
    if kind.endswith("api_key"):
        token = "LONG_TERM" if kind == "long_term_api_key" else "SHORT_TERM"
        condition = {"StringEquals": {"bedrock:BearerTokenType": token}}
        assert policy.statements["CallWithApiKeys"]["Condition"] == condition


@pytest.mark.parametrize("kind", ["temporary", "long_term_api_key"])
def test_the_credentials_may_call_the_second_endpoint_of_bedrock_if_that_is_allowed(world, deployed, kind):
    allowed = CredentialsPolicy(world, deployed(world.new_ai_secret(), Kind=kind, AllowMantle="true")).statements
    inference = allowed["InvokeModelsOfMantle"]
    assert inference["Action"] == "bedrock-mantle:CreateInference"
    assert inference["Resource"] == "arn:aws:bedrock-mantle:*:000000000000:project/*"
    assert ("CallMantleWithApiKeys" in allowed) == (kind == "long_term_api_key")


@pytest.mark.parametrize("kind", ["temporary", "access_key"])
def test_the_credentials_may_call_only_the_models_and_regions_that_parameters_name(world, deployed, kind):
    ai_secret, model = world.new_ai_secret(), "arn:aws:bedrock:*::foundation-model/amazon.nova-micro-v1:0"
    outputs = deployed(ai_secret, Kind=kind, ModelArns=model, Regions="us-east-1,eu-central-1")
    assert rotate_deployed(world, outputs)["outcome"] == "rotated"
    assert refused_inference(world, ai_secret) is None
    assert refused_inference(world, ai_secret, region="eu-central-1") is None
    assert refused_inference(world, ai_secret, model="amazon.nova-lite-v1:0") == "AccessDeniedException"
    assert refused_inference(world, ai_secret, region="us-west-2") == "AccessDeniedException"


def test_the_credentials_may_be_used_only_from_the_gateway_and_are_tested_from_elsewhere(world, deployed):
    ai_secret = world.new_ai_secret()
    outputs = deployed(ai_secret, SourceAddresses="203.0.113.7/32", AllowMantle="true")
    assert rotate_deployed(world, outputs)["outcome"] == "rotated"
    assert refused_inference(world, ai_secret) == "AccessDeniedException"
    inference = CredentialsPolicy(world, outputs).statements["InvokeModelsOfMantle"]
    assert inference["Condition"] == {"IpAddress": {"aws:SourceIp": ["203.0.113.7/32"]}}
    ai_secret = world.new_ai_secret()
    rotate_deployed(world, deployed(ai_secret, SourceAddresses="127.0.0.0/8"))
    assert refused_inference(world, ai_secret) is None


class CredentialsPolicy:
    """The policy of the role or user whose credentials Braintrust receives."""

    def __init__(self, world, outputs):
        self.iam = world.client("iam")
        if "IamUserName" in outputs:
            attached = self.iam.list_attached_user_policies(UserName=outputs["IamUserName"])
        else:
            attached = self.iam.list_attached_role_policies(RoleName=outputs["BedrockRoleArn"].rpartition("/")[2])
        [policy] = attached["AttachedPolicies"]
        self.arn = policy["PolicyArn"]
        self.version = self.iam.get_policy(PolicyArn=self.arn)["Policy"]["DefaultVersionId"]
        found = self.iam.get_policy_version(PolicyArn=self.arn, VersionId=self.version)
        self.statements = {statement["Sid"]: statement for statement in found["PolicyVersion"]["Document"]["Statement"]}

    def set_without(self, statement):
        rest = {name: found for name, found in self.statements.items() if name != statement}
        made = self.iam.create_policy_version(PolicyArn=self.arn, PolicyDocument=document_of(rest), SetAsDefault=True)
        # A policy can have at most five versions.
        self.iam.delete_policy_version(PolicyArn=self.arn, VersionId=self.version)
        self.version = made["PolicyVersion"]["VersionId"]


def refused_inference(world, ai_secret, model="amazon.nova-micro-v1:0", region=None):
    """The error code of an inference with the credentials in Braintrust; None if it succeeds."""
    found = world.braintrust.credentials(ai_secret)
    is_api_key = found["auth_type"] == "api_key"
    pair = () if is_api_key else (found["access_key"], found["secret"], found["session_token"])
    message = {"role": "user", "content": [{"text": "."}]}
    with patch.dict(os.environ, {"AWS_BEARER_TOKEN_BEDROCK": found["secret"]} if is_api_key else {}):
        session = boto3.session.Session(*pair, region_name=region or found["region"])
        client = session.client("bedrock-runtime", endpoint_url=world.aws.url)
        try:
            client.converse(modelId=model, messages=[message])
        except ClientError as error:
            return error.response["Error"]["Code"]
    return None


@pytest.mark.parametrize(
    ("kind", "call"),
    [("access_key", "iam:ListAccessKeys"), ("long_term_api_key", "iam:ListServiceSpecificCredentials")],
)
def test_the_function_may_touch_no_other_user(world, deployed, kind, call):
    outputs = deployed(world.new_ai_secret(), Kind=kind)
    change_target(world, outputs, user_name=world.new_user())
    assert refused_call(world, outputs) == call


def test_the_function_may_create_no_api_key_that_lives_longer_or_is_for_another_service(world, deployed):
    outputs = deployed(world.new_ai_secret(), Kind="long_term_api_key", CredentialAgeDays="30")
    # The local IAM doesn't know another service that it could refuse.
    allowed = execution_policy(world, outputs)["CreateApiKeysThatExpire"]["Condition"]
    assert allowed["StringEquals"] == {"iam:ServiceSpecificCredentialServiceName": "bedrock.amazonaws.com"}
    change_target(world, outputs, credential_age_days=31)
    assert refused_call(world, outputs) == "iam:CreateServiceSpecificCredential"


def test_the_function_may_assume_no_other_role(world, deployed):
    outputs = deployed(world.new_ai_secret())
    change_target(world, outputs, role_arn=world.cloud.new_role(trust="*"))
    assert refused_call(world, outputs) == "sts:AssumeRole"
