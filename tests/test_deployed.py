"""The template, deployed by sam into a local AWS that enforces IAM and signatures: wide enough, and no wider."""

import json
import subprocess
import time
import uuid

import pytest
from botocore.exceptions import ClientError
from conftest import OLD, ROOT
from local.deployment import deploy, invoke
from local.upstream import form
from samcli.yamlhelper import yaml_parse
from test_crashes import KINDS, STANDING
from test_steps import STEPS

TEMPLATE = ROOT / ".aws-sam/build/template.yaml"
SCHEDULE = (ROOT / "events/schedule.json").read_text()
SOME_SECRET = "arn:aws:secretsmanager:us-east-1:000000000000:secret:some-AbCdEf"
FORCED = json.dumps({"action": "rotate", "force": True})

pytestmark = pytest.mark.xdist_group("deployed")


def run(command, environment):
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.fixture
def deployed(bench, tmp_path):
    """Deploys the template after `change(resources)`, for an ai_secret; answers its outputs."""

    def deployed(ai_secret, change=lambda resources: None, **parameters):
        template = yaml_parse(TEMPLATE.read_text())
        change(template["Resources"])
        template["Resources"]["RotatorFunction"]["Properties"]["CodeUri"] = str(TEMPLATE.parent / "RotatorFunction")
        changed = tmp_path / "template.json"
        changed.write_text(json.dumps(template))
        parameters = {
            "BraintrustApiKey": bench.api_key,
            "BraintrustApiUrl": bench.braintrust.url,
            "AiSecretId": ai_secret,
            **parameters,
        }
        given = {name: value for name, value in parameters.items() if value is not None}
        return deploy(bench.stack, changed, f"rotator-{uuid.uuid4().hex[:8]}", given, run)

    return deployed


def tick(bench, outputs, event=SCHEDULE):
    """The one target's outcome and the whole report of an event that must succeed."""
    report, failed = invoke(bench.stack, outputs["FunctionName"], event)
    assert not failed, report
    return report["targets"][0]["outcome"], report


def rotate_by_secrets_manager(bench, outputs, secret=None):
    """The steps of a rotation that Secrets Manager begins: each one's name and outcome."""
    secret = secret or outputs["StagedSecretArn"]
    bench.stack.client("secretsmanager").rotate_secret(
        SecretId=secret, RotationLambdaARN=outputs["FunctionArn"], RotationRules={"AutomaticallyAfterDays": 30}
    )
    return bench.aws.wait_for_rotation(secret)


@pytest.mark.parametrize("kind", KINDS)
def test_the_schedule_rotates_each_kind(bench, deployed, kind):
    ai_secret = bench.ai_secret()
    outputs = deployed(ai_secret, Kind=kind)
    outcome, report = tick(bench, outputs)
    assert (outcome, report["targets"][0]["kind"]) == ("rotated", kind)
    assert bench.holds_working_credentials(ai_secret)
    if kind in STANDING:
        held = bench.staged({"secret_id": outputs["StagedSecretArn"]})
        assert list(bench.listed({"kind": kind, "user_name": outputs["IamUserName"]})) == [held["credential_id"]]
        assert tick(bench, outputs)[0] == "not_due"
    else:
        assert "StagedSecretArn" not in outputs
        [request] = bench.aws_requests("sts:AssumeRole")
        assert form(request)["RoleArn"] == outputs["BedrockRoleArn"]


@pytest.mark.parametrize("kind", KINDS)
def test_secrets_manager_rotates_each_kind(bench, deployed, kind):
    ai_secret = bench.ai_secret()
    outputs = deployed(ai_secret, Kind=kind, StageCredentials="true")
    steps = rotate_by_secrets_manager(bench, outputs)
    assert [(step.name, step.ok) for step in steps] == [(name, True) for name in STEPS], steps
    assert bench.holds_working_credentials(ai_secret)
    held = bench.staged({"secret_id": outputs["StagedSecretArn"]})
    assert (held["kind"], held["credential_id"]) == (kind, steps[-1].body["targets"][0]["credential_id"])
    assert tick(bench, outputs)[0] == "left_to_secrets_manager"


def execution_policy(bench, outputs):
    """The statements of the function's role, by name."""
    role = outputs["ExecutionRoleArn"].rpartition("/")[2]
    document = bench.stack.client("iam").get_role_policy(RoleName=role, PolicyName="rotate")["PolicyDocument"]
    return {statement["Sid"]: statement for statement in document["Statement"]}


def bedrock_policy(bench, attached):
    """The statements, by name, of the one policy that a user or role has."""
    iam = bench.stack.client("iam")
    [policy] = attached["AttachedPolicies"]
    version = iam.get_policy(PolicyArn=policy["PolicyArn"])["Policy"]["DefaultVersionId"]
    found = iam.get_policy_version(PolicyArn=policy["PolicyArn"], VersionId=version)
    return {statement["Sid"]: statement for statement in found["PolicyVersion"]["Document"]["Statement"]}


@pytest.mark.parametrize(
    ("kind", "statements"),
    [
        ("temporary", {"AssumeTheBedrockRole"}),
        ("short_term_api_key", {"AssumeTheBedrockRole"}),
        ("access_key", {"RotateAccessKeys", "StageTheCredentials"}),
        ("long_term_api_key", {"MintApiKeysThatExpire", "RetireApiKeys", "StageTheCredentials"}),
    ],
)
def test_each_kind_gets_the_policies_that_it_needs(bench, deployed, kind, statements):
    outputs = deployed(bench.ai_secret(), Kind=kind)
    found = execution_policy(bench, outputs)
    assert set(found) == {"ReadTheBraintrustApiKey", "WriteItsOwnLogs", *statements}
    iam = bench.stack.client("iam")
    if kind in STANDING:
        assert "BedrockRoleArn" not in outputs
        user = iam.get_user(UserName=outputs["IamUserName"])["User"]
        for statement in found.values():
            if "iam:" in str(statement["Action"]):
                assert statement["Resource"] == user["Arn"]
        assert found["StageTheCredentials"]["Resource"] == outputs["StagedSecretArn"]
        held = bedrock_policy(bench, iam.list_attached_user_policies(UserName=user["UserName"]))
    else:
        assert "IamUserName" not in outputs
        assert found["AssumeTheBedrockRole"]["Resource"] == outputs["BedrockRoleArn"]
        held = bedrock_policy(bench, iam.list_attached_role_policies(RoleName=outputs["BedrockRoleArn"].split("/")[1]))
    use = {"CallWithApiKeys"} if kind.endswith("api_key") else set()
    assert set(held) == {"InvokeModels", "ProveTheCredentials", *use}
    if use:
        token = "LONG_TERM" if kind == "long_term_api_key" else "SHORT_TERM"
        assert held["CallWithApiKeys"]["Action"] == "bedrock:CallWithBearerToken"
        assert held["CallWithApiKeys"]["Condition"] == {"StringEquals": {"bedrock:BearerTokenType": token}}


def test_rotating_the_api_key_is_allowed_only_on_request(bench, deployed):
    outputs = deployed(bench.ai_secret(), RotateApiKey="true")
    statement = execution_policy(bench, outputs)["RotateTheBraintrustApiKey"]
    assert statement["Resource"] == outputs["BraintrustApiKeySecretArn"]
    rotate_by_secrets_manager(bench, outputs, outputs["BraintrustApiKeySecretArn"])


def test_secrets_manager_may_not_rotate_another_secret_with_this_function(bench, deployed):
    outputs = deployed(bench.ai_secret(), Kind="access_key")
    with pytest.raises(ClientError, match="cannot invoke the specified Lambda function"):
        rotate_by_secrets_manager(bench, outputs, bench.staged_secret())
    with pytest.raises(ClientError, match="cannot invoke the specified Lambda function"):
        rotate_by_secrets_manager(bench, outputs, outputs["BraintrustApiKeySecretArn"])


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
    report, failed = invoke(bench.stack, outputs["FunctionName"], SCHEDULE)
    assert not failed, report
    [target] = report["targets"]
    assert (target["name"], target["region"]) == ("eu", "eu-central-1")
    assert bench.braintrust.ai_secrets[ai_secret]["metadata"]["region"] == "eu-central-1"
    assert bench.holds_working_credentials(ai_secret)
    [request] = bench.aws_requests("sts:AssumeRole")
    assert b"ExternalId=from-braintrust" in request.body and b"DurationSeconds=900" in request.body


def test_an_existing_role_and_an_existing_secret_are_used(bench, deployed):
    ai_secret = bench.ai_secret()
    role = bench.stack.role(trust="*")
    outputs = deployed(
        ai_secret, BedrockRoleArn=role, BraintrustApiKey=None, BraintrustApiKeySecretArn=bench.api_key_secret
    )
    report, failed = invoke(bench.stack, outputs["FunctionName"], SCHEDULE)
    assert not failed, report
    assert (outputs["BedrockRoleArn"], outputs["BraintrustApiKeySecretArn"]) == (role, bench.api_key_secret)
    assert bench.holds_working_credentials(ai_secret)


@pytest.mark.parametrize("kind", STANDING)
def test_an_existing_user_and_an_existing_staged_secret_are_used(bench, deployed, kind):
    ai_secret, user, secret = bench.ai_secret(), bench.user(), bench.staged_secret()
    outputs = deployed(ai_secret, Kind=kind, IamUserName=user, StagedSecretArn=secret)
    assert (outputs["IamUserName"], outputs["StagedSecretArn"]) == (user, secret)
    assert tick(bench, outputs)[0] == "rotated"
    assert list(bench.listed({"kind": kind, "user_name": user})) == [bench.staged({"secret_id": secret})["credential_id"]]
    assert bench.holds_working_credentials(ai_secret)


def test_the_times_of_standing_credentials_reach_the_function(bench, deployed):
    outputs = deployed(
        bench.ai_secret(), Kind="long_term_api_key", RotateAfter="12h", Overlap="2h", CredentialAgeDays="7"
    )
    _, report = tick(bench, outputs)
    [key] = [key for key in bench.aws.api_keys.values() if key.user == outputs["IamUserName"]]
    assert key.id == report["targets"][0]["credential_id"]
    assert (key.expires - key.created).days == 7
    function = bench.stack.client("lambda").get_function_configuration(FunctionName=outputs["FunctionName"])
    [target] = json.loads(function["Environment"]["Variables"]["TARGETS"])
    assert (target["rotate_after"], target["overlap"]) == ("12h", "2h")


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
    assert tick(bench, outputs)[0] == "rotated"


@pytest.mark.parametrize(
    ("parameters", "description"),
    [
        ({"IamUserName": "somebody"}, "IamUserName is for the kinds"),
        ({"RotationDays": "30"}, "RotationDays is for the kinds"),
        ({"Kind": "short_term_api_key", "RotationDays": "1"}, "RotationDays is for the kinds"),
        ({"Kind": "access_key", "BedrockRoleArn": "arn:aws:iam::000000000000:role/x"}, "BedrockRoleArn is for the kinds"),
        ({"Kind": "long_term_api_key", "ExternalId": "from-braintrust"}, "ExternalId is for the kinds"),
        ({"BraintrustApiKeySecretArn": SOME_SECRET}, "BraintrustApiKeySecretArn, not both"),
        (
            {"BraintrustApiKey": None, "BraintrustApiKeySecretArn": SOME_SECRET, "StagedSecretArn": SOME_SECRET},
            "have to be two secrets",
        ),
        ({"AiSecretName": "AWS Bedrock"}, "AiSecretName, not both"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(bench, deployed, parameters, description):
    with pytest.raises(AssertionError, match=description):
        deployed(bench.ai_secret(), **parameters)


def test_the_deployed_schedule_fires(bench, deployed):
    ai_secret = bench.ai_secret()
    deployed(ai_secret, ScheduleExpression="rate(1 minute)")
    until = time.monotonic() + 100
    while bench.braintrust.ai_secrets[ai_secret]["metadata"] == OLD:
        assert time.monotonic() < until, "the schedule did not fire"
        time.sleep(0.5)
    assert bench.holds_working_credentials(ai_secret)


def without(statement, policy):
    """A change that takes one statement out of the policy that `policy(resources)` finds."""

    def change(resources):
        statements = policy(resources)["Statement"]
        [found] = [found for found in statements if f'"{statement}"' in json.dumps(found)]
        statements.remove(found)

    return change


def of_the_function(resources):
    return resources["ExecutionPolicy"]["Properties"]["PolicyDocument"]


def of_who_uses_bedrock(resources):
    return resources["BedrockPolicy"]["Properties"]["PolicyDocument"]


@pytest.mark.parametrize(
    ("kind", "statement", "policy", "service", "call"),
    [
        ("temporary", "ReadTheBraintrustApiKey", of_the_function, "secrets_manager", "GetSecretValue"),
        ("temporary", "ProveTheCredentials", of_who_uses_bedrock, "bedrock", "ListFoundationModels"),
        ("access_key", "ProveTheCredentials", of_who_uses_bedrock, "bedrock", "ListFoundationModels"),
        ("short_term_api_key", "CallWithApiKeys", of_who_uses_bedrock, "bedrock", "ListFoundationModels"),
        ("long_term_api_key", "CallWithApiKeys", of_who_uses_bedrock, "bedrock", "ListFoundationModels"),
    ],
)
def test_a_policy_without_one_statement_is_too_narrow(bench, deployed, kind, statement, policy, service, call):
    ai_secret = bench.ai_secret()
    before = bench.braintrust.snapshot()
    outputs = deployed(ai_secret, without(statement, policy), Kind=kind)
    report, failed = invoke(bench.stack, outputs["FunctionName"], SCHEDULE)
    assert failed
    error = report["targets"][0]["error"]
    assert (error["class"], error["service"], error["call"]) == ("permission", service, call)
    assert bench.braintrust.snapshot() == before


@pytest.mark.parametrize("kind", ["temporary", *STANDING])
def test_the_function_needs_every_action_that_its_policy_allows(bench, deployed, kind):
    ai_secret = bench.ai_secret()
    # Without overlap, so that three ticks make, deactivate and delete.
    outputs = deployed(ai_secret, Kind=kind, Overlap="0m", StageCredentials="true")
    whole = execution_policy(bench, outputs)
    # The local AWS lets anybody log; a warm function reads the API key no more, so that is another test's.
    for name in set(whole) - {"WriteItsOwnLogs", "ReadTheBraintrustApiKey"}:
        actions = whole[name]["Action"]
        for action in [actions] if isinstance(actions, str) else actions:
            set_execution_policy(bench, outputs, narrowed(whole, name, action))
            assert first_refusal(bench, outputs) == action, f"{action} was taken out of {name}"
            assert bench.holds_working_credentials(ai_secret) or bench.patches() == []
    set_execution_policy(bench, outputs, whole)
    tick(bench, outputs, FORCED)


def set_execution_policy(bench, outputs, statements):
    document = {"Version": "2012-10-17", "Statement": list(statements.values())}
    bench.stack.client("iam").put_role_policy(
        RoleName=outputs["ExecutionRoleArn"].rpartition("/")[2],
        PolicyName="rotate",
        PolicyDocument=json.dumps(document),
    )


def narrowed(statements, name, action):
    """The statements with one action less; the others of its statement stay."""
    actions = statements[name]["Action"]
    rest = [] if isinstance(actions, str) else [other for other in actions if other != action]
    changed = {**statements, name: {**statements[name], "Action": rest}}
    return {name: statement for name, statement in changed.items() if statement["Action"]}


def first_refusal(bench, outputs):
    """The action that some tick of a credential's whole life is not allowed."""
    for _ in range(4):
        report, failed = invoke(bench.stack, outputs["FunctionName"], FORCED)
        if failed:
            error = report["targets"][0]["error"]
            assert error["class"] == "permission", error
            return f"{error['service'].replace('_', '')}:{error['call']}"
    return None


def aimed_at(target):
    """A change that gives the function another target; `${…}` in it are the template's."""

    def change(resources):
        variables = resources["RotatorFunction"]["Properties"]["Environment"]["Variables"]
        variables["TARGETS"] = {"Fn::Sub": json.dumps([target])}

    return change


@pytest.mark.parametrize(
    ("kind", "call"),
    [("access_key", "ListAccessKeys"), ("long_term_api_key", "ListServiceSpecificCredentials")],
)
def test_the_function_may_touch_no_other_user(bench, deployed, kind, call):
    ai_secret = bench.ai_secret()
    target = bench.target(ai_secret, kind=kind, role_arn=None, user_name=bench.user(), secret_id="${StagedSecret.Id}")
    outputs = deployed(ai_secret, aimed_at(target), Kind=kind)
    report, failed = invoke(bench.stack, outputs["FunctionName"], SCHEDULE)
    assert failed
    error = report["targets"][0]["error"]
    assert (error["class"], error["service"], error["call"]) == ("permission", "iam", call)


def test_the_function_may_make_no_api_key_that_lives_longer(bench, deployed):
    ai_secret = bench.ai_secret()
    target = bench.target(ai_secret, kind="long_term_api_key", role_arn=None, credential_age_days=31)
    target |= {"user_name": "${IamUser}", "secret_id": "${StagedSecret.Id}"}
    outputs = deployed(ai_secret, aimed_at(target), Kind="long_term_api_key", CredentialAgeDays="30")
    report, failed = invoke(bench.stack, outputs["FunctionName"], SCHEDULE)
    assert failed
    error = report["targets"][0]["error"]
    assert (error["class"], error["call"]) == ("permission", "CreateServiceSpecificCredential")


def test_the_function_may_assume_no_other_role(bench, deployed):
    ai_secret = bench.ai_secret()
    target = bench.target(ai_secret, role_arn=bench.stack.role(trust="*"))
    outputs = deployed(ai_secret, aimed_at(target))
    report, failed = invoke(bench.stack, outputs["FunctionName"], SCHEDULE)
    assert failed
    assert report["targets"][0]["error"]["class"] == "permission"
