"""The template, deployed by sam into a local AWS that enforces IAM and signatures: wide enough, and no wider."""

import json
import os
import re
import subprocess
import time
import uuid
from unittest.mock import patch

import boto3
import pytest
from botocore.exceptions import ClientError
from conftest import OLD, ROOT
from support.deployment import deploy, invoke
from support.iam import ACCOUNT
from support.upstream import form
from test_crashes import KINDS, STANDING
from test_steps import STEPS

TEMPLATE = ROOT / ".aws-sam/build/template.yaml"
SCHEDULE = (ROOT / "events/schedule.json").read_text()
FORCED = json.dumps({"action": "rotate", "force": True})
SOME_ROLE = "arn:aws:iam::000000000000:role/some"
SOME_SECRET = "arn:aws:secretsmanager:us-east-1:000000000000:secret:some-AbCdEf"
# What Lambda itself does in the function's name.
OF_LAMBDA = {"WriteItsOwnLogs", "KeepWhatFailed"}
# What no rotation needs.
OF_CHECK = {"TellWhatIsAllowed"}
STATEMENTS = {
    "temporary": {"AssumeTheBedrockRole"},
    "access_key": {"RotateAccessKeys", "TellWhatIsAllowed", "StageTheCredentials"},
    "short_term_api_key": {"AssumeTheBedrockRole"},
    "long_term_api_key": {"MintApiKeysThatExpire", "RetireApiKeys", "TellWhatIsAllowed", "StageTheCredentials"},
}


def run(command, environment):
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def parameters_of(bench, ai_secret, changed):
    parameters = {
        "BraintrustApiKey": bench.api_key,
        "BraintrustApiUrl": bench.braintrust.url,
        "AiSecretId": ai_secret,
        **changed,
    }
    return {name: value for name, value in parameters.items() if value is not None}


@pytest.fixture
def deployed(bench):
    """Deploys the template for an ai_secret; answers its outputs."""

    def deployed(ai_secret, **parameters):
        name = f"rotator-{uuid.uuid4().hex[:8]}"
        return deploy(bench.stack, TEMPLATE, name, parameters_of(bench, ai_secret, parameters), run)

    yield deployed
    # Its calls would be among those of the tests after it.
    events = bench.stack.client("events")
    for rule in events.list_rules()["Rules"]:
        events.disable_rule(Name=rule["Name"])


def tick(bench, outputs, event=SCHEDULE):
    """The report on the one target, of an event that must succeed."""
    report, failed = invoke(bench.stack, outputs["FunctionName"], event)
    assert not failed, report
    return report["targets"][0]


def refusal(bench, outputs, event=SCHEDULE):
    """The call that the one target's rotation is not allowed."""
    report, failed = invoke(bench.stack, outputs["FunctionName"], event)
    assert failed, report
    error = report["targets"][0]["error"]
    assert error["class"] == "permission", error
    return f"{error['service'].replace('_', '')}:{error['call']}"


def rotate_by_secrets_manager(bench, outputs, secret):
    """The steps of a rotation that Secrets Manager begins."""
    bench.stack.client("secretsmanager").rotate_secret(
        SecretId=secret, RotationLambdaARN=outputs["FunctionArn"], RotationRules={"AutomaticallyAfterDays": 30}
    )
    return bench.aws.wait_for_rotation(secret)


def all_succeeded(steps):
    return [(step.name, step.ok) for step in steps] == [(name, True) for name in STEPS]


@pytest.mark.parametrize("kind", KINDS)
def test_the_schedule_rotates_each_kind(bench, deployed, kind):
    ai_secret = bench.ai_secret()
    outputs = deployed(ai_secret, Kind=kind)
    assert set(execution_policy(bench, outputs)) == {"ReadTheBraintrustApiKey", *OF_LAMBDA, *STATEMENTS[kind]}
    target = tick(bench, outputs)
    assert (target["outcome"], target["kind"]) == ("rotated", kind)
    assert bench.holds_working_credentials(ai_secret)
    if kind in STANDING:
        assert "BedrockRoleArn" not in outputs
        held = bench.staged({"secret_id": outputs["StagedSecretArn"]})
        assert list(bench.listed({"kind": kind, "user_name": outputs["IamUserName"]})) == [held["credential_id"]]
        assert tick(bench, outputs)["outcome"] == "not_due"
    else:
        assert "IamUserName" not in outputs and "StagedSecretArn" not in outputs
        [request] = bench.aws_requests("sts:AssumeRole")
        assert form(request)["RoleArn"] == outputs["BedrockRoleArn"]
        role = bench.stack.client("iam").get_role(RoleName=outputs["BedrockRoleArn"].rpartition("/")[2])["Role"]
        [trusted] = role["AssumeRolePolicyDocument"]["Statement"]
        assert trusted["Principal"] == {"AWS": outputs["ExecutionRoleArn"]}


@pytest.mark.parametrize("kind", KINDS)
def test_secrets_manager_rotates_each_kind(bench, deployed, kind):
    ai_secret = bench.ai_secret()
    outputs = deployed(ai_secret, Kind=kind, StageCredentials="true")
    steps = rotate_by_secrets_manager(bench, outputs, outputs["StagedSecretArn"])
    assert all_succeeded(steps), steps
    assert bench.holds_working_credentials(ai_secret)
    held = bench.staged({"secret_id": outputs["StagedSecretArn"]})
    assert (held["kind"], held["credential_id"]) == (kind, steps[-1].body["targets"][0]["credential_id"])
    assert tick(bench, outputs)["outcome"] == "left_to_secrets_manager"


@pytest.mark.parametrize("kind", STANDING)
def test_secrets_manager_rotates_by_itself_every_so_many_days(bench, deployed, kind):
    ai_secret = bench.ai_secret()
    outputs = deployed(ai_secret, Kind=kind, RotationDays="7")
    steps = bench.aws.wait_for_rotation(outputs["StagedSecretArn"])
    assert all_succeeded(steps), steps
    assert bench.holds_working_credentials(ai_secret)
    secret = bench.stack.client("secretsmanager").describe_secret(SecretId=outputs["StagedSecretArn"])
    assert (secret["RotationEnabled"], secret["RotationRules"]) == (True, {"AutomaticallyAfterDays": 7})
    assert tick(bench, outputs)["outcome"] == "left_to_secrets_manager"


def test_rotating_the_api_key_is_allowed_only_on_request(bench, deployed):
    account = str(uuid.uuid4())
    id, key = bench.braintrust.add_service_token(account, orgs=("Acme",), name="rotator", owner=True)
    secret = bench.stack.secret({"api_key": key, "service_token_id": id, "service_account_id": account})
    ai_secret = bench.ai_secret()
    outputs = deployed(ai_secret, BraintrustApiKey=None, BraintrustApiKeySecretArn=secret, RotateApiKey="true")
    assert execution_policy(bench, outputs)["RotateTheBraintrustApiKey"]["Resource"] == secret
    assert tick(bench, outputs)["outcome"] == "rotated"
    steps = rotate_by_secrets_manager(bench, outputs, secret)
    assert all_succeeded(steps), steps
    held = bench.staged({"secret_id": secret})
    assert held["api_key"] != key and held["service_account_id"] == account
    assert held["service_token_id"] in bench.braintrust.service_tokens
    # The function still has the old key in memory, and must not live on it.
    bench.braintrust.remove_key(key)
    assert tick(bench, outputs)["outcome"] == "rotated"
    assert bench.holds_working_credentials(ai_secret)


def test_secrets_manager_may_not_rotate_another_secret_with_this_function(bench, deployed):
    outputs = deployed(bench.ai_secret(), Kind="access_key")
    for secret in (bench.staged_secret(), outputs["BraintrustApiKeySecretArn"]):
        with pytest.raises(ClientError, match="cannot invoke the specified Lambda function"):
            rotate_by_secrets_manager(bench, outputs, secret)
    policy = bench.stack.client("lambda").get_policy(FunctionName=outputs["FunctionName"])["Policy"]
    statements = json.loads(policy)["Statement"]
    [statement] = [found for found in statements if found["Principal"] == {"Service": "secretsmanager.amazonaws.com"}]
    # The local AWS has no other account to try it from.
    assert statement["Condition"]["StringEquals"] == {"AWS:SourceAccount": ACCOUNT}


def test_a_name_an_organization_an_external_id_and_a_region_reach_the_function(bench, deployed):
    bench.braintrust.add_key(bench.api_key, orgs=("Acme", "Acme EU"))
    bench.ai_secret("AWS Bedrock")
    ai_secret = bench.ai_secret("AWS Bedrock", org_name="Acme EU")
    outputs = deployed(
        ai_secret,
        AiSecretId=None,
        AiSecretName="AWS Bedrock",
        BraintrustOrgName="Acme EU",
        ExternalId="from-braintrust",
        BedrockRegion="eu-central-1",
        DurationSeconds="900",
        TargetName="eu",
    )
    target = tick(bench, outputs)
    assert (target["name"], target["region"]) == ("eu", "eu-central-1")
    assert bench.braintrust.ai_secrets[ai_secret]["metadata"]["region"] == "eu-central-1"
    assert bench.holds_working_credentials(ai_secret)
    [request] = bench.aws_requests("sts:AssumeRole")
    assert (form(request)["ExternalId"], form(request)["DurationSeconds"]) == ("from-braintrust", "900")
    aim(bench, outputs, external_id="from-somebody-else")
    assert refusal(bench, outputs) == "sts:AssumeRole"


def test_an_existing_role_and_an_existing_secret_are_used(bench, deployed):
    ai_secret = bench.ai_secret()
    role = bench.stack.role(trust="*")
    outputs = deployed(
        ai_secret, BedrockRoleArn=role, BraintrustApiKey=None, BraintrustApiKeySecretArn=bench.api_key_secret
    )
    assert (outputs["BedrockRoleArn"], outputs["BraintrustApiKeySecretArn"]) == (role, bench.api_key_secret)
    assert tick(bench, outputs)["outcome"] == "rotated"
    assert bench.holds_working_credentials(ai_secret)


@pytest.mark.parametrize("kind", STANDING)
def test_an_existing_user_and_an_existing_staged_secret_are_used(bench, deployed, kind):
    ai_secret, user, secret = bench.ai_secret(), bench.user(), bench.staged_secret()
    outputs = deployed(ai_secret, Kind=kind, IamUserName=user, StagedSecretArn=secret)
    assert (outputs["IamUserName"], outputs["StagedSecretArn"]) == (user, secret)
    assert tick(bench, outputs)["outcome"] == "rotated"
    assert list(bench.listed({"kind": kind, "user_name": user})) == [bench.staged({"secret_id": secret})["credential_id"]]
    assert bench.holds_working_credentials(ai_secret)


def test_the_times_of_standing_credentials_reach_the_function(bench, deployed):
    outputs = deployed(
        bench.ai_secret(), Kind="long_term_api_key", RotateAfter="12h", Overlap="2h", CredentialAgeDays="7"
    )
    [target] = json.loads(variables(bench, outputs)["TARGETS"])
    assert (target["rotate_after"], target["overlap"]) == ("12h", "2h")
    key = bench.aws.api_keys[tick(bench, outputs)["credential_id"]]
    assert (key.expires - key.created).days == 7


def test_a_key_of_ones_own_encrypts_both_secrets(bench, deployed):
    key = bench.stack.client("kms").create_key()["KeyMetadata"]["Arn"]
    outputs = deployed(bench.ai_secret(), Kind="access_key", KmsKeyArn=key)
    secrets = [outputs["BraintrustApiKeySecretArn"], outputs["StagedSecretArn"]]
    for secret in secrets:
        assert bench.stack.client("secretsmanager").describe_secret(SecretId=secret)["KmsKeyId"] == key
    # The local AWS encrypts nothing, so it cannot tell whether this is enough.
    statement = execution_policy(bench, outputs)["UseTheKeyOfTheSecrets"]
    assert (statement["Action"], statement["Resource"]) == (["kms:Decrypt", "kms:GenerateDataKey"], key)
    assert statement["Condition"] == {"StringEquals": {"kms:EncryptionContext:SecretARN": secrets}}
    assert tick(bench, outputs)["outcome"] == "rotated"


@pytest.mark.parametrize(
    ("changed", "description"),
    [
        ({"BraintrustApiKey": None}, "Give BraintrustApiKey or BraintrustApiKeySecretArn."),
        ({"BraintrustApiKeySecretArn": SOME_SECRET}, "BraintrustApiKeySecretArn, not both"),
        ({"AiSecretId": None}, "Give AiSecretId or AiSecretName."),
        ({"AiSecretName": "AWS Bedrock"}, "AiSecretName, not both"),
        ({"BraintrustOrgName": "Acme"}, "BraintrustOrgName goes with AiSecretName"),
        ({"IamUserName": "somebody"}, "IamUserName is for the kinds"),
        ({"RotationDays": "30"}, "RotationDays is for the kinds"),
        ({"Kind": "short_term_api_key", "RotationDays": "1"}, "RotationDays is for the kinds"),
        ({"Kind": "access_key", "BedrockRoleArn": "arn:aws:iam::000000000000:role/x"}, "BedrockRoleArn is for the kinds"),
        ({"Kind": "long_term_api_key", "ExternalId": "from-braintrust"}, "ExternalId is for the kinds"),
        ({"RotateApiKey": "true"}, "RotateApiKey needs BraintrustApiKeySecretArn"),
        (
            {"BraintrustApiKey": None, "BraintrustApiKeySecretArn": SOME_SECRET, "StagedSecretArn": SOME_SECRET},
            "have to be two secrets",
        ),
        ({"RoleArns": SOME_ROLE}, "go with Targets"),
        ({"Targets": "[{}]"}, "leave AiSecretId"),
        ({"TargetsSecretArn": SOME_SECRET}, "leave AiSecretId"),
        ({"TargetsSecretArn": SOME_SECRET, "AiSecretId": None}, "give RoleArns or IamUserArns"),
        ({"TargetsSecretArn": SOME_SECRET, "AiSecretId": None, "Targets": "[{}]"}, "TargetsSecretArn, not both"),
        ({"Targets": "[{}]", "AiSecretId": None}, "give RoleArns or IamUserArns"),
        ({"Targets": "[{}]", "AiSecretId": None, "RoleArns": SOME_ROLE, "Kind": "access_key"}, "each says its own kind"),
        ({"Targets": "[{}]", "AiSecretId": None, "RoleArns": SOME_ROLE, "StagedSecretArn": SOME_SECRET}, "StagedSecretArns"),
        ({"AlarmTopicArn": "arn:aws:sns:us-east-1:000000000000:a", "AlarmEmail": "a@example.com"}, "AlarmEmail is for"),
        ({"MetricsNamespace": "AWS/Lambda"}, "do not begin with AWS/"),
        ({"VpcSubnetIds": "subnet-01234567"}, "go together"),
        ({"VpcSecurityGroupIds": "sg-01234567"}, "go together"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(bench, changed, description):
    parameters = parameters_of(bench, str(uuid.uuid4()), changed)
    s3, key = bench.stack.client("s3"), f"{uuid.uuid4()}.yaml"
    s3.create_bucket(Bucket="templates")
    # In S3, as it is too long for a request.
    s3.put_object(
        Bucket="templates",
        Key=key,
        Body=TEMPLATE.read_text().replace("CodeUri: RotatorFunction", "CodeUri: s3://bucket/key"),
    )
    # CloudFormation refuses them by itself; sam would only add seconds.
    with pytest.raises(ClientError, match=re.escape(description)):
        bench.stack.client("cloudformation").create_change_set(
            StackName=f"refused-{uuid.uuid4().hex[:8]}",
            ChangeSetName="refused",
            ChangeSetType="CREATE",
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
            TemplateURL=f"https://s3.us-east-1.amazonaws.com/templates/{key}",
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
        )


def test_the_deployed_schedule_fires(bench, deployed):
    ai_secret = bench.ai_secret()
    deployed(ai_secret, ScheduleExpression="rate(1 minute)")
    until = time.monotonic() + 100
    while bench.braintrust.ai_secrets[ai_secret]["metadata"] == OLD:
        assert time.monotonic() < until, "the schedule did not fire"
        time.sleep(0.5)
    assert bench.holds_working_credentials(ai_secret)


@pytest.mark.parametrize("kind", KINDS)
def test_the_function_needs_every_action_that_its_policy_allows(bench, deployed, kind):
    ai_secret = bench.ai_secret()
    # Without overlap, so that three ticks make, deactivate and delete.
    outputs = deployed(ai_secret, Kind=kind, Overlap="0m", StageCredentials="true")
    whole = execution_policy(bench, outputs)
    for name, statement in whole.items():
        assert statement["Resource"] == resource_of(name, outputs)
    # First, because a warm function reads the API key no more. The local Lambda needs nothing for what it does itself.
    for name in ["ReadTheBraintrustApiKey", *(set(whole) - {"ReadTheBraintrustApiKey", *OF_CHECK, *OF_LAMBDA})]:
        actions = whole[name]["Action"]
        for action in [actions] if isinstance(actions, str) else actions:
            set_execution_policy(bench, outputs, narrowed(whole, name, action))
            assert first_refusal(bench, outputs) == action, f"{action} was taken out of {name}"
            assert bench.holds_working_credentials(ai_secret) or bench.patches() == []
    set_execution_policy(bench, outputs, whole)
    tick(bench, outputs, FORCED)


@pytest.mark.parametrize("kind", STANDING)
def test_a_check_and_a_status_of_what_is_deployed_are_well_and_the_check_needs_its_statement(bench, deployed, kind):
    outputs = deployed(bench.ai_secret(), Kind=kind)
    tick(bench, outputs)
    for action in ("status", "check"):
        answer, failed = invoke(bench.stack, outputs["FunctionName"], json.dumps({"action": action}))
        failed_lines = [line for line in answer["targets"][0].get("lines", []) if line["result"] == "failed"]
        assert not failed and answer["ok"], failed_lines
    [line] = [line for line in answer["targets"][0]["lines"] if "make and retire" in line["what"]]
    assert line["result"] == "ok", line
    whole = execution_policy(bench, outputs)
    set_execution_policy(bench, outputs, {name: s for name, s in whole.items() if name not in OF_CHECK})
    answer, _ = invoke(bench.stack, outputs["FunctionName"], json.dumps({"action": "check"}))
    [line] = [line for line in answer["targets"][0]["lines"] if "make and retire" in line["what"]]
    assert line["result"] == "untold"


def execution_policy(bench, outputs):
    """The statements of the function's role, by name."""
    document = bench.stack.client("iam").get_role_policy(
        RoleName=outputs["ExecutionRoleArn"].rpartition("/")[2], PolicyName="rotate"
    )["PolicyDocument"]
    return {statement["Sid"]: statement for statement in document["Statement"]}


def set_execution_policy(bench, outputs, statements):
    bench.stack.client("iam").put_role_policy(
        RoleName=outputs["ExecutionRoleArn"].rpartition("/")[2],
        PolicyName="rotate",
        PolicyDocument=document_of(statements),
    )


def document_of(statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements.values())})


def resource_of(statement, outputs):
    """The one thing that a statement of the function's policy may be about."""
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
    """The statements with one action less; the others of its statement stay."""
    actions = statements[name]["Action"]
    rest = [] if isinstance(actions, str) else [other for other in actions if other != action]
    changed = {**statements, name: {**statements[name], "Action": rest}}
    return {name: statement for name, statement in changed.items() if statement["Action"]}


def first_refusal(bench, outputs):
    """The call that some tick of a credential's whole life is not allowed."""
    for _ in range(4):
        _, failed = invoke(bench.stack, outputs["FunctionName"], FORCED)
        if failed:
            return refusal(bench, outputs, FORCED)
    return None


@pytest.mark.parametrize("kind", KINDS)
def test_braintrust_needs_every_statement_of_the_policy_that_its_credentials_have(bench, deployed, kind):
    ai_secret = bench.ai_secret()
    outputs = deployed(ai_secret, Kind=kind)
    policy = BedrockPolicy(bench, outputs)
    before = bench.braintrust.snapshot()
    for statement in set(policy.statements) - {"InvokeModels"}:
        policy.set_without(statement)
        assert refusal(bench, outputs, FORCED) == "bedrock:ListFoundationModels", statement
    assert bench.braintrust.snapshot() == before
    policy.set_without("InvokeModels")
    tick(bench, outputs, FORCED)
    assert refused_inference(bench, ai_secret) == "AccessDeniedException"
    policy.set_without(None)
    assert refused_inference(bench, ai_secret) is None
    if kind.endswith("api_key"):
        token = "LONG_TERM" if kind == "long_term_api_key" else "SHORT_TERM"
        condition = {"StringEquals": {"bedrock:BearerTokenType": token}}
        assert policy.statements["CallWithApiKeys"]["Condition"] == condition


class BedrockPolicy:
    """The one policy of the role or user whose credentials Braintrust gets."""

    def __init__(self, bench, outputs):
        self.iam = bench.stack.client("iam")
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
        # A policy has at most five versions.
        self.iam.delete_policy_version(PolicyArn=self.arn, VersionId=self.version)
        self.version = made["PolicyVersion"]["VersionId"]


def refused_inference(bench, ai_secret):
    """The error of asking a model with what Braintrust holds; None if it answers."""
    found = bench.braintrust.credentials(ai_secret)
    is_api_key = found["auth_type"] == "api_key"
    pair = () if is_api_key else (found["access_key"], found["secret"], found["session_token"])
    message = {"role": "user", "content": [{"text": "."}]}
    with patch.dict(os.environ, {"AWS_BEARER_TOKEN_BEDROCK": found["secret"]} if is_api_key else {}):
        session = boto3.session.Session(*pair, region_name=found["region"])
        client = session.client("bedrock-runtime", endpoint_url=bench.aws.url)
        try:
            client.converse(modelId="amazon.nova-micro-v1:0", messages=[message])
        except ClientError as error:
            return error.response["Error"]["Code"]
    return None


@pytest.mark.parametrize(
    ("kind", "call"),
    [("access_key", "iam:ListAccessKeys"), ("long_term_api_key", "iam:ListServiceSpecificCredentials")],
)
def test_the_function_may_touch_no_other_user(bench, deployed, kind, call):
    outputs = deployed(bench.ai_secret(), Kind=kind)
    aim(bench, outputs, user_name=bench.user())
    assert refusal(bench, outputs) == call


def test_the_function_may_make_no_api_key_that_lives_longer_or_is_for_another_service(bench, deployed):
    outputs = deployed(bench.ai_secret(), Kind="long_term_api_key", CredentialAgeDays="30")
    # The local IAM knows no other service that it could refuse.
    allowed = execution_policy(bench, outputs)["MintApiKeysThatExpire"]["Condition"]
    assert allowed["StringEquals"] == {"iam:ServiceSpecificCredentialServiceName": "bedrock.amazonaws.com"}
    aim(bench, outputs, credential_age_days=31)
    assert refusal(bench, outputs) == "iam:CreateServiceSpecificCredential"


def test_the_function_may_assume_no_other_role(bench, deployed):
    outputs = deployed(bench.ai_secret())
    aim(bench, outputs, role_arn=bench.stack.role(trust="*"))
    assert refusal(bench, outputs) == "sts:AssumeRole"


def variables(bench, outputs):
    function = bench.stack.client("lambda").get_function_configuration(FunctionName=outputs["FunctionName"])
    return function["Environment"]["Variables"]


def aim(bench, outputs, **fields):
    """Gives the function's one target other fields."""
    changed = variables(bench, outputs)
    [target] = json.loads(changed["TARGETS"])
    changed["TARGETS"] = json.dumps([target | fields])
    bench.stack.client("lambda").update_function_configuration(
        FunctionName=outputs["FunctionName"], Environment={"Variables": changed}
    )
