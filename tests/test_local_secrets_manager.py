"""The local Secrets Manager keeps versions and rotates as the real one does."""

import io
import uuid
import zipfile

import pytest
from support.aws_clients import allow, client_of, refused, session_of
from support.invocation_result import InvocationResult
from support.local_rotation import ROTATION_STEPS
from support.local_secrets_manager import MAX_VERSIONS

BOOTSTRAP = """#!/usr/bin/env python3
import json, os, urllib.request
api = "http://" + os.environ["AWS_LAMBDA_RUNTIME_API"] + "/2018-06-01/runtime/invocation/"
while True:
    with urllib.request.urlopen(api + "next") as next:
        id, event = next.headers["Lambda-Runtime-Aws-Request-Id"], next.read()
    end, body = "response", event
    if json.loads(event)["Step"] == "testSecret":
        end, body = "error", b'{"errorMessage": "failed on purpose", "errorType": "OnPurpose"}'
    urllib.request.urlopen(urllib.request.Request(api + id + "/" + end, body)).close()
"""


@pytest.fixture
def secrets(cloud):
    yield cloud.client("secretsmanager")
    cloud.aws.rotation.invoke = None
    cloud.aws.rotation.retries = 1
    cloud.aws.secrets_manager.max_versions = MAX_VERSIONS


def new_secret(cloud, **value):
    return cloud.client("secretsmanager").create_secret(Name=f"s-{uuid.uuid4()}", **value)["ARN"]


def stages(secrets, arn):
    described = secrets.describe_secret(SecretId=arn).get("VersionIdsToStages", {})
    return {version: sorted(found) for version, found in described.items()}


def test_a_secret_made_without_a_value_has_no_version(cloud, secrets):
    arn, token = new_secret(cloud), str(uuid.uuid4())
    described = secrets.describe_secret(SecretId=arn)
    assert "VersionIdsToStages" not in described and "RotationEnabled" not in described
    with refused() as refusal:
        secrets.get_secret_value(SecretId=arn)
    assert refusal.code == "ResourceNotFoundException"


def put_pending(secrets, arn, value):
    token = str(uuid.uuid4())
    return secrets.put_secret_value(
        SecretId=arn, ClientRequestToken=token, SecretString=value, VersionStages=["AWSPENDING"]
    )


def test_the_first_version_becomes_current_whatever_stages_the_request_names(cloud, secrets):
    arn = new_secret(cloud)
    first = put_pending(secrets, arn, "1")
    assert sorted(first["VersionStages"]) == ["AWSCURRENT", "AWSPENDING"]
    assert stages(secrets, arn) == {first["VersionId"]: ["AWSCURRENT", "AWSPENDING"]}
    assert secrets.get_secret_value(SecretId=arn)["SecretString"] == "1"
    second = put_pending(secrets, arn, "2")
    assert second["VersionStages"] == ["AWSPENDING"]
    assert stages(secrets, arn) == {first["VersionId"]: ["AWSCURRENT"], second["VersionId"]: ["AWSPENDING"]}


def test_the_version_after_a_placeholder_is_not_the_first(cloud, secrets):
    arn = new_secret(cloud, SecretString="{}")
    [placeholder] = stages(secrets, arn)
    pending = put_pending(secrets, arn, "1")["VersionId"]
    assert stages(secrets, arn) == {placeholder: ["AWSCURRENT"], pending: ["AWSPENDING"]}


def test_the_pending_version_of_an_empty_secrets_rotation_becomes_current_with_its_value(cloud, secrets):
    arn, token = new_secret(cloud), str(uuid.uuid4())
    cloud.aws.begin_rotation(arn, token)
    assert stages(secrets, arn) == {token: ["AWSPENDING"]}
    secrets.put_secret_value(SecretId=arn, ClientRequestToken=token, SecretString="1", VersionStages=["AWSPENDING"])
    assert stages(secrets, arn) == {token: ["AWSCURRENT", "AWSPENDING"]}


def test_a_secret_has_a_limited_number_of_versions_that_are_younger_than_a_day(cloud, secrets):
    cloud.aws.secrets_manager.max_versions = 2
    arn, other = new_secret(cloud), new_secret(cloud)
    first = {"SecretId": arn, "ClientRequestToken": str(uuid.uuid4()), "SecretString": "1"}
    secrets.put_secret_value(**first)
    put_pending(secrets, arn, "2")
    with refused() as refusal:
        put_pending(secrets, arn, "3")
    assert (refusal.code, refusal.status) == ("LimitExceededException", 400)
    secrets.put_secret_value(**first)
    put_pending(secrets, other, "1")


def test_a_version_keeps_its_value(cloud, secrets):
    arn, token = new_secret(cloud, SecretString="0"), str(uuid.uuid4())
    pending = {"SecretId": arn, "ClientRequestToken": token, "VersionStages": ["AWSPENDING"]}
    first = secrets.put_secret_value(**pending, SecretString="1")
    again = secrets.put_secret_value(**pending, SecretString="1")
    assert again["VersionId"] == first["VersionId"] and again["VersionStages"] == ["AWSPENDING"]
    for other in ({"SecretString": "2"}, {"SecretBinary": b"1"}):
        with refused() as refusal:
            secrets.put_secret_value(**pending, **other)
        assert (refusal.code, refusal.status) == ("ResourceExistsException", 400)
    assert secrets.get_secret_value(SecretId=arn, VersionStage="AWSPENDING")["SecretString"] == "1"
    with refused() as refusal:
        secrets.put_secret_value(SecretId=arn)
    assert refusal.code == "InvalidRequestException"


def test_a_stage_is_on_one_version_and_awsprevious_follows_awscurrent(cloud, secrets):
    arn = new_secret(cloud, SecretString="0")
    [zero] = stages(secrets, arn)
    one, two, three = (str(uuid.uuid4()) for _ in range(3))
    for version in (one, two):
        pending = {"ClientRequestToken": version, "VersionStages": ["AWSPENDING"]}
        secrets.put_secret_value(SecretId=arn, SecretString=version, **pending)
    assert stages(secrets, arn) == {zero: ["AWSCURRENT"], two: ["AWSPENDING"]}
    with refused() as refusal:
        secrets.update_secret_version_stage(SecretId=arn, VersionStage="AWSCURRENT", RemoveFromVersionId=zero)
    assert refusal.code == "InvalidParameterException"
    move = {"VersionStage": "AWSCURRENT", "MoveToVersionId": two, "RemoveFromVersionId": zero}
    secrets.update_secret_version_stage(SecretId=arn, **move)
    assert stages(secrets, arn) == {zero: ["AWSPREVIOUS"], two: ["AWSCURRENT", "AWSPENDING"]}
    secrets.update_secret_version_stage(SecretId=arn, VersionStage="AWSPENDING", RemoveFromVersionId=two)
    secrets.put_secret_value(SecretId=arn, SecretString="3", ClientRequestToken=three)
    assert stages(secrets, arn) == {two: ["AWSPREVIOUS"], three: ["AWSCURRENT"]}


class MinimalRotation:
    """A minimal rotation function that fails the given steps."""

    def __init__(self, cloud, *failures):
        self.secrets = cloud.client("secretsmanager")
        self.failures = list(failures)
        self.events = []
        self.seen = []
        cloud.aws.rotation.invoke = self

    def __call__(self, event):
        self.events.append(event)
        self.seen.append(stages(self.secrets, event["SecretId"]))
        named = {"SecretId": event["SecretId"], "ClientRequestToken": event["ClientRequestToken"]}
        if event["Step"] in self.failures:
            self.failures.remove(event["Step"])
            return InvocationResult(False, "failed on purpose", 200, b"", 0.0)
        if event["Step"] == "createSecret":
            pending = {"RotationToken": event["RotationToken"], "VersionStages": ["AWSPENDING"]}
            self.secrets.put_secret_value(**named, SecretString="new", **pending)
        if event["Step"] == "finishSecret":
            [old] = [version for version, found in self.seen[-1].items() if "AWSCURRENT" in found]
            move = {"MoveToVersionId": event["ClientRequestToken"], "RemoveFromVersionId": old}
            self.secrets.update_secret_version_stage(SecretId=event["SecretId"], VersionStage="AWSCURRENT", **move)
        return InvocationResult(True, None, 200, b"", 0.0)


def test_rotate_secret_calls_the_four_steps_on_a_version_without_a_value(cloud, secrets):
    arn, token = new_secret(cloud, SecretString="old"), str(uuid.uuid4())
    [old] = stages(secrets, arn)
    rotator = MinimalRotation(cloud)
    found = []

    def create_late(event):
        if event["Step"] == "createSecret":
            for version in ({"VersionId": token}, {"VersionStage": "AWSPENDING"}):
                with refused() as refusal:
                    secrets.get_secret_value(SecretId=arn, **version)
                found.append((refusal.code, refusal.status))
        return rotator(event)

    cloud.aws.rotation.invoke = create_late
    function, rules = "arn:aws:lambda:us-east-1:000000000000:function:f", {"AutomaticallyAfterDays": 30}
    rotate = {"RotationLambdaARN": function, "RotationRules": rules, "ClientRequestToken": token}
    assert secrets.rotate_secret(SecretId=arn, **rotate)["VersionId"] == token
    steps = cloud.aws.wait_for_rotation(arn)
    assert [(step.name, step.token, step.ok) for step in steps] == [(name, token, True) for name in ROTATION_STEPS]
    assert found == [("ResourceNotFoundException", 400)] * 2
    assert rotator.seen[0] == {old: ["AWSCURRENT"], token: ["AWSPENDING"]}
    assert all(e["SecretId"] == arn and e["ClientRequestToken"] == token and e["RotationToken"] for e in rotator.events)
    assert stages(secrets, arn) == {old: ["AWSPREVIOUS"], token: ["AWSCURRENT", "AWSPENDING"]}
    described = secrets.describe_secret(SecretId=arn)
    assert described["RotationEnabled"] is True
    assert (described["RotationLambdaARN"], described["RotationRules"]) == (function, rules)
    cloud.aws.rotation.invoke = rotator
    # AWSPENDING on the current version doesn't mean that a rotation is unfinished.
    assert secrets.rotate_secret(SecretId=arn)["VersionId"] != token
    assert [step.ok for step in cloud.aws.wait_for_rotation(arn)] == [True] * 4
    secrets.cancel_rotate_secret(SecretId=arn)
    assert secrets.describe_secret(SecretId=arn)["RotationEnabled"] is False


def test_a_failed_step_makes_the_whole_rotation_start_again_with_its_token(cloud, secrets):
    arn = new_secret(cloud, SecretString="old")
    MinimalRotation(cloud, "testSecret")
    token = secrets.rotate_secret(SecretId=arn)["VersionId"]
    steps = cloud.aws.wait_for_rotation(arn)
    assert [step.name for step in steps] == [*ROTATION_STEPS[:3], *ROTATION_STEPS]
    assert {step.token for step in steps} == {token} and [s.name for s in steps if not s.ok] == ["testSecret"]
    assert secrets.get_secret_value(SecretId=arn)["SecretString"] == "new"


def test_an_unfinished_rotation_is_attempted_again_instead_of_a_new_one(cloud, secrets):
    arn = new_secret(cloud, SecretString="old")
    MinimalRotation(cloud, "setSecret", "setSecret")
    token = secrets.rotate_secret(SecretId=arn)["VersionId"]
    assert [step.ok for step in cloud.aws.wait_for_rotation(arn)] == [True, False] * 2
    with refused() as refusal:
        secrets.rotate_secret(SecretId=arn)
    assert refusal.code == "InvalidRequestException"
    assert refusal.message == "A previous rotation isn't complete. That rotation will be reattempted."
    assert [(step.token, step.ok) for step in cloud.aws.wait_for_rotation(arn)] == [(token, True)] * 4
    assert secrets.get_secret_value(SecretId=arn)["VersionId"] == token


def test_rotation_that_is_not_immediate_calls_test_secret_alone_on_a_temporary_version(cloud, secrets):
    arn = new_secret(cloud, SecretString="old")
    before = stages(secrets, arn)
    rotator = MinimalRotation(cloud)
    token = secrets.rotate_secret(SecretId=arn, RotateImmediately=False)["VersionId"]
    assert [step.name for step in cloud.aws.wait_for_rotation(arn)] == ["testSecret"]
    assert rotator.seen == [before | {token: ["AWSPENDING"]}]
    assert stages(secrets, arn) == before and secrets.describe_secret(SecretId=arn)["RotationEnabled"]


def test_rotate_secret_calls_the_deployed_function_if_its_policy_lets_secrets_manager_in(cloud, secrets):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        bootstrap = zipfile.ZipInfo("bootstrap")
        bootstrap.external_attr = 0o755 << 16
        file.writestr(bootstrap, BOOTSTRAP)
    functions, arn = cloud.client("lambda"), new_secret(cloud, SecretString="old")
    function = functions.create_function(
        FunctionName=f"f-{uuid.uuid4().hex}",
        Runtime="provided.al2023",
        Role=cloud.new_role(trust={"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ]}),
        Handler="bootstrap",
        Code={"ZipFile": archive.getvalue()},
    )["FunctionArn"]  # fmt: skip

    def let_in(**condition):
        functions.add_permission(
            FunctionName=function,
            StatementId=uuid.uuid4().hex,
            Action="lambda:InvokeFunction",
            Principal="secretsmanager.amazonaws.com",
            **condition,
        )

    let_in(SourceArn=f"{arn}-other")
    let_in(SourceAccount="111111111111")
    with refused() as refusal:
        secrets.rotate_secret(SecretId=arn, RotationLambdaARN=function)
    assert refusal.code == "AccessDeniedException"
    assert "RotationEnabled" not in secrets.describe_secret(SecretId=arn)
    let_in(SourceArn=arn, SourceAccount="000000000000")
    cloud.aws.rotation.retries = 0
    token = secrets.rotate_secret(SecretId=arn, RotationLambdaARN=function)["VersionId"]
    steps = cloud.aws.wait_for_rotation(arn)
    assert [(step.name, step.ok) for step in steps] == list(zip(ROTATION_STEPS, (True, True, False)))
    assert {name: steps[0].body[name] for name in ("Step", "SecretId", "ClientRequestToken")} == {
        "Step": "createSecret",
        "SecretId": arn,
        "ClientRequestToken": token,
    }
    assert steps[2].body["errorMessage"] == "failed on purpose"


def test_secrets_are_rotated_and_written_only_with_permission(cloud, secrets):
    arn = new_secret(cloud, SecretString="old")
    before = stages(secrets, arn)
    reader = client_of(cloud, "secretsmanager", session_of(cloud, allow("secretsmanager:DescribeSecret", resource=arn)))
    [version] = stages(reader, arn)
    for call, parameters in [
        ("rotate_secret", {}),
        ("cancel_rotate_secret", {}),
        ("get_secret_value", {}),
        ("put_secret_value", {"SecretString": "new"}),
        ("put_secret_value", {"SecretString": "new", "ClientRequestToken": version}),
        ("update_secret_version_stage", {"VersionStage": "x", "MoveToVersionId": version}),
    ]:
        with refused() as refusal:
            getattr(reader, call)(SecretId=arn, **parameters)
        assert refusal.code == "AccessDeniedException", call
    assert stages(secrets, arn) == before
