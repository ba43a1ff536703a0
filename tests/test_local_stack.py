"""The local stack refuses and answers as the real services do, where ministack alone would not."""

import base64
import io
import json
import time
import uuid
import zipfile
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import boto3
import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.client import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from support.function import Result
from support.minted import Minted

BEDROCK = "bedrock.amazonaws.com"
STEPS = ["createSecret", "setSecret", "testSecret", "finishSecret"]
VECTORS = json.loads(Path(__file__).with_name("vectors").joinpath("short_term_api_key.json").read_text())["vectors"]


class Refused:
    """What a block was refused with."""

    def __enter__(self):
        return self

    def __exit__(self, type, error, traceback):
        assert isinstance(error, ClientError), "nothing was refused"
        self.code, self.message = error.response["Error"]["Code"], error.response["Error"]["Message"]
        self.status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return True


def client_of(stack, service, credentials):
    return boto3.session.Session(*credentials, region_name="us-east-1").client(
        service, endpoint_url=stack.aws.url, config=Config(retries={"total_max_attempts": 1})
    )


def session_of(stack, *statements):
    """The credentials of a new role's session, which may do what the statements say."""
    role = stack.role(trust="*", allow=())
    policy = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    stack.client("iam").put_role_policy(RoleName=role.rpartition("/")[2], PolicyName="p", PolicyDocument=policy)
    made = stack.client("sts").assume_role(RoleArn=role, RoleSessionName="test", DurationSeconds=900)["Credentials"]
    return made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"]


def allow(*actions, resource="*", **conditions):
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": resource}
    return statement | ({"Condition": conditions} if conditions else {})


def user_keys(stack, user):
    made = stack.client("iam").create_access_key(UserName=user)["AccessKey"]
    return made["AccessKeyId"], made["SecretAccessKey"], None


def long_term_key(stack, user, **age):
    made = stack.client("iam").create_service_specific_credential(UserName=user, ServiceName=BEDROCK, **age)
    return made["ServiceSpecificCredential"]


def short_term_key(credentials, region="us-east-1", seconds=900):
    action = {"Action": "CallWithBearerToken"}
    request = AWSRequest("POST", f"https://{BEDROCK}/", params=action, headers={"host": BEDROCK})
    SigV4QueryAuth(Credentials(*credentials), "bedrock", region, expires=seconds).add_auth(request)
    url = request.url.removeprefix("https://") + "&Version=1"
    return "bedrock-api-key-" + base64.b64encode(url.encode()).decode()


def ask_bedrock(stack, key, path="/foundation-models", body=None):
    """The status, the error's type and the body."""
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    request = Request(stack.aws.url + path, json.dumps(body).encode() if body else None, headers)
    try:
        with urlopen(request) as answer:
            return answer.status, None, json.load(answer)
    except HTTPError as error:
        return error.code, error.headers["x-amzn-ErrorType"], json.load(error)


def why(stack, key):
    status, type, body = ask_bedrock(stack, key)
    return status, type, body.get("Message")


INVALID = (403, "AccessDeniedException", "Authentication failed: Please make sure your API Key is valid.")
EXPIRED = (403, "AccessDeniedException", "Bearer Token has expired")


def test_a_user_has_at_most_two_access_keys_inactive_ones_included(bench, stack):
    iam, user = stack.client("iam"), bench.user()
    first, *_ = user_keys(stack, user)
    user_keys(stack, user)
    iam.update_access_key(UserName=user, AccessKeyId=first, Status="Inactive")
    with Refused() as refused:
        user_keys(stack, user)
    assert (refused.code, refused.status) == ("LimitExceeded", 409)
    iam.delete_access_key(UserName=user, AccessKeyId=first)
    user_keys(stack, user)


@pytest.mark.parametrize("end", ["inactive", "deleted"])
def test_bedrock_does_not_know_an_access_key_that_is(bench, stack, end):
    user = bench.user()
    keys = user_keys(stack, user)
    bedrock, iam = client_of(stack, "bedrock", keys), stack.client("iam")
    assert bedrock.list_foundation_models()["modelSummaries"]
    if end == "inactive":
        iam.update_access_key(UserName=user, AccessKeyId=keys[0], Status="Inactive")
    else:
        iam.delete_access_key(UserName=user, AccessKeyId=keys[0])
    with Refused() as refused:
        bedrock.list_foundation_models()
    assert (refused.code, refused.status) == ("UnrecognizedClientException", 403)
    assert not stack.aws.works(*keys, "us-east-1")


def test_a_user_has_at_most_two_long_term_keys_whose_secrets_are_shown_once(bench, stack):
    iam, user = stack.client("iam"), bench.user()
    made = [long_term_key(stack, user, CredentialAgeDays=90), long_term_key(stack, user)]
    id = made[0]["ServiceSpecificCredentialId"]
    assert id.startswith("ACCA") and made[0]["ServiceCredentialSecret"].startswith("ABSK")
    assert made[0]["ExpirationDate"] - made[0]["CreateDate"] == timedelta(days=90)
    assert "ExpirationDate" not in made[1]
    iam.update_service_specific_credential(UserName=user, ServiceSpecificCredentialId=id, Status="Inactive")
    with Refused() as refused:
        long_term_key(stack, user)
    assert (refused.code, refused.status) == ("LimitExceeded", 409)
    page = iam.list_service_specific_credentials(UserName=user, ServiceName=BEDROCK, MaxItems=1)
    assert page["IsTruncated"]
    rest = iam.list_service_specific_credentials(UserName=user, MaxItems=1, Marker=page["Marker"])
    assert not rest["IsTruncated"] and "Marker" not in rest
    listed = page["ServiceSpecificCredentials"] + rest["ServiceSpecificCredentials"]
    assert [key["Status"] for key in listed] == ["Inactive", "Active"]
    for key in made:
        del key["ServiceCredentialSecret"]
    assert listed == [made[0] | {"Status": "Inactive"}, made[1]]


@pytest.mark.parametrize(
    ("call", "parameters", "code", "status"),
    [
        ("create", {"ServiceName": "s3.amazonaws.com"}, "NotSupportedService", 404),
        ("create", {"ServiceName": BEDROCK, "UserName": "nobody"}, "NoSuchEntity", 404),
        ("create", {"ServiceName": BEDROCK, "CredentialAgeDays": 36601}, "ValidationError", 400),
        ("update", {"ServiceSpecificCredentialId": "ACCA" + "0" * 16, "Status": "Active"}, "NoSuchEntity", 404),
        ("reset", {"ServiceSpecificCredentialId": "ACCA" + "0" * 16}, "NoSuchEntity", 404),
        ("delete", {"ServiceSpecificCredentialId": "ACCA" + "0" * 16}, "NoSuchEntity", 404),
    ],
)
def test_iam_refuses_what_it_cannot(bench, stack, call, parameters, code, status):
    with Refused() as refused:
        getattr(stack.client("iam"), f"{call}_service_specific_credential")(**{"UserName": bench.user(), **parameters})
    assert (refused.code, refused.status) == (code, status)


def test_another_users_long_term_key_does_not_exist(bench, stack):
    id = long_term_key(stack, bench.user())["ServiceSpecificCredentialId"]
    with Refused() as refused:
        stack.client("iam").delete_service_specific_credential(UserName=bench.user(), ServiceSpecificCredentialId=id)
    assert refused.code == "NoSuchEntity" and id in stack.aws.api_keys


def test_long_term_keys_are_managed_only_with_permission_and_a_valid_signature(bench, stack):
    users = bench.user(), bench.user()
    mine = f"arn:aws:iam::000000000000:user/{users[0]}"
    id, secret, token = session_of(
        stack,
        allow(
            "iam:CreateServiceSpecificCredential",
            resource=mine,
            StringEquals={"iam:ServiceSpecificCredentialServiceName": BEDROCK},
            NumericLessThanEquals={"iam:ServiceSpecificCredentialAgeDays": "90"},
        ),
    )
    iam = client_of(stack, "iam", (id, secret, token))
    made = iam.create_service_specific_credential(UserName=users[0], ServiceName=BEDROCK, CredentialAgeDays=90)
    key = {"ServiceSpecificCredentialId": made["ServiceSpecificCredential"]["ServiceSpecificCredentialId"]}
    new, named = {"ServiceName": BEDROCK, "CredentialAgeDays": 90}, {"UserName": users[0]}
    for call, parameters in [
        ("create_service_specific_credential", {**new, "UserName": users[1]}),
        ("create_service_specific_credential", {**new, **named, "CredentialAgeDays": 91}),
        ("create_service_specific_credential", {"ServiceName": BEDROCK, **named}),
        ("list_service_specific_credentials", named),
        ("update_service_specific_credential", {**named, **key, "Status": "Inactive"}),
        ("reset_service_specific_credential", {**named, **key}),
        ("delete_service_specific_credential", {**named, **key}),
        ("create_access_key", named),
    ]:
        with Refused() as refused:
            getattr(iam, call)(**parameters)
        assert (refused.code, refused.status) == ("AccessDenied", 403), call
    with Refused() as refused:
        forged = client_of(stack, "iam", (id, "x" * 40, token))
        forged.create_service_specific_credential(UserName=users[0], **new)
    assert refused.code == "SignatureDoesNotMatch"
    [kept] = stack.client("iam").list_service_specific_credentials(UserName=users[0])["ServiceSpecificCredentials"]
    assert kept["Status"] == "Active"


def test_a_client_cannot_tell_the_evaluator_what_to_ask(bench, stack):
    """The two headers between the servers are not let through."""
    conditions = {"StringEquals": {"iam:ServiceSpecificCredentialServiceName": "other"}}
    iam = client_of(stack, "iam", session_of(stack, allow("iam:*ServiceSpecific*", **conditions)))

    def forge(request, **_):
        request.headers["x-local-only-authorize"] = "1"
        request.headers["x-local-condition-keys"] = '{"iam:ServiceSpecificCredentialServiceName": "other"}'

    iam.meta.events.register("before-send.iam", forge)
    with Refused() as refused:
        iam.create_service_specific_credential(UserName=bench.user(), ServiceName=BEDROCK)
    assert refused.code == "AccessDenied"


@pytest.mark.parametrize("end", ["inactive", "expired", "reset", "deleted"])
def test_bedrock_refuses_a_long_term_key_that_is(bench, stack, end):
    iam, user = stack.client("iam"), bench.user()
    made = long_term_key(stack, user, CredentialAgeDays=1)
    key, named = made["ServiceCredentialSecret"], {"UserName": user}
    named["ServiceSpecificCredentialId"] = id = made["ServiceSpecificCredentialId"]
    assert ask_bedrock(stack, key)[2]["modelSummaries"] and stack.aws.key_works(key, "us-east-1")
    if end == "inactive":
        iam.update_service_specific_credential(**named, Status="Inactive")
    elif end == "expired":
        stack.aws.api_keys[id].expires = datetime.now(timezone.utc)
        [listed] = iam.list_service_specific_credentials(UserName=user)["ServiceSpecificCredentials"]
        assert listed["Status"] == "Expired"
    elif end == "reset":
        new = iam.reset_service_specific_credential(**named)["ServiceSpecificCredential"]["ServiceCredentialSecret"]
        assert stack.aws.key_works(new, "us-east-1")
    else:
        iam.delete_service_specific_credential(**named)
    assert why(stack, key) == (EXPIRED if end == "expired" else INVALID)
    assert not stack.aws.key_works(key, "us-east-1")


@pytest.mark.parametrize("kind", ["access_key", "long_term_api_key", "short_term_api_key"])
def test_new_credentials_are_unknown_for_a_while(bench, stack, kind):
    user = bench.user()
    stack.aws.new_credentials_unknown_for = 0.5
    if kind == "long_term_api_key":
        key = long_term_key(stack, user)["ServiceCredentialSecret"]
    else:
        keys = user_keys(stack, user)
        key = short_term_key(keys)
    works = stack.aws.works if kind == "access_key" else stack.aws.key_works
    asked = (*keys, "us-east-1") if kind == "access_key" else (key, "us-east-1")
    assert not works(*asked)
    time.sleep(0.6)
    assert works(*asked)


def test_short_term_keys_work_in_their_region_while_their_session_and_they_last(stack):
    session = session_of(stack, allow("bedrock:CallWithBearerToken", "bedrock:ListFoundationModels"))
    key = short_term_key(session, "eu-central-1")
    assert ask_bedrock(stack, key)[2]["modelSummaries"]
    assert stack.aws.key_works(key, "eu-central-1") and not stack.aws.key_works(key, "us-east-1")
    stack.aws.bedrock_region = "us-east-1"
    try:
        assert why(stack, key) == INVALID
    finally:
        stack.aws.bedrock_region = None
    brief = short_term_key(session, seconds=1)
    time.sleep(1.1)
    assert why(stack, brief) == EXPIRED
    for seconds in (0, 43201):
        assert why(stack, short_term_key(session, seconds=seconds)) == INVALID
    id, secret, token = session
    stack.aws.minted.add(id, Minted(secret, token, datetime.now(timezone.utc)))
    assert why(stack, key) == EXPIRED


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_official_generators_keys_are_verified_to_the_byte(stack, vector):
    stack.aws.minted.add(vector["access_key_id"], Minted(vector["secret_access_key"], vector["session_token"]))
    # Of January 2026: a good signature is all that is left to be told that it has expired.
    assert why(stack, vector["token"]) == EXPIRED
    url = vector["decoded"]
    date = url.partition("X-Amz-Date=")[2][:16]
    for wrong in [
        url.replace("X-Amz-Expires=", "X-Amz-Expires=1"),
        url.replace(date, date.replace("T1", "T0")),
        url.replace("us-east-1", "us-east-2"),
        url.replace("bedrock.amazonaws.com", "bedrock.example.com"),
        url.replace("&Version=1", ""),
        url.replace("Action=CallWithBearerToken&", "") + "&Action=CallWithBearerToken",
        url.replace("%2F", "/"),
    ]:
        assert wrong != url
        assert why(stack, "bedrock-api-key-" + base64.b64encode(wrong.encode()).decode()) == INVALID, wrong
    stack.aws.minted.add(vector["access_key_id"], Minted("another secret", vector["session_token"]))
    assert why(stack, vector["token"]) == INVALID


@pytest.mark.parametrize(
    "missing", ["bedrock:CallWithBearerToken", "bedrock:ListFoundationModels", "bedrock:BearerTokenType"]
)
def test_a_key_may_do_what_its_owner_may(bench, stack, missing):
    actions = {"bedrock:CallWithBearerToken", "bedrock:ListFoundationModels"} - {missing}

    def statement(own, other):
        types = {"StringEquals": {"bedrock:BearerTokenType": own if missing != "bedrock:BearerTokenType" else other}}
        return allow(*actions, **types)

    user = bench.user()
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement("LONG_TERM", "SHORT_TERM")]})
    stack.client("iam").put_user_policy(UserName=user, PolicyName="bedrock", PolicyDocument=policy)
    long_term = long_term_key(stack, user)["ServiceCredentialSecret"]
    short_term = short_term_key(session_of(stack, statement("SHORT_TERM", "LONG_TERM")))
    for key in (long_term, short_term):
        status, type, body = ask_bedrock(stack, key)
        assert (status, type) == (403, "AccessDeniedException")
        assert "is not authorized to perform: bedrock:" in (body.get("Message") or body["message"])


def test_keys_may_converse(bench, stack):
    user, statement = bench.user(), allow("bedrock:CallWithBearerToken", "bedrock:InvokeModel")
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    stack.client("iam").put_user_policy(UserName=user, PolicyName="bedrock", PolicyDocument=policy)
    session = session_of(stack, statement)
    body = {"messages": [{"role": "user", "content": [{"text": "."}]}], "inferenceConfig": {"maxTokens": 1}}
    model = "amazon.nova-micro-v1:0"
    for key in (long_term_key(stack, user)["ServiceCredentialSecret"], short_term_key(session)):
        status, _, answer = ask_bedrock(stack, key, f"/model/{model}/converse", body)
        assert status == 200 and answer["output"]["message"]["role"] == "assistant" and answer["stopReason"]
    signed = client_of(stack, "bedrock-runtime", session).converse(modelId=model, **body)
    assert signed["output"]["message"]["role"] == "assistant"


@pytest.fixture
def secrets(stack):
    yield stack.client("secretsmanager")
    stack.aws.rotation.invoke = None
    stack.aws.rotation.retries = 1


def new_secret(stack, **value):
    return stack.client("secretsmanager").create_secret(Name=f"s-{uuid.uuid4()}", **value)["ARN"]


def stages(secrets, arn):
    described = secrets.describe_secret(SecretId=arn).get("VersionIdsToStages", {})
    return {version: sorted(found) for version, found in described.items()}


def test_a_secret_made_without_a_value_has_no_version(stack, secrets):
    arn, token = new_secret(stack), str(uuid.uuid4())
    described = secrets.describe_secret(SecretId=arn)
    assert "VersionIdsToStages" not in described and "RotationEnabled" not in described
    with Refused() as refused:
        secrets.get_secret_value(SecretId=arn)
    assert refused.code == "ResourceNotFoundException"
    secrets.put_secret_value(SecretId=arn, ClientRequestToken=token, SecretString="1", VersionStages=["AWSPENDING"])
    secrets.update_secret_version_stage(SecretId=arn, VersionStage="AWSCURRENT", MoveToVersionId=token)
    assert stages(secrets, arn) == {token: ["AWSCURRENT", "AWSPENDING"]}


def test_a_version_keeps_its_value(stack, secrets):
    arn, token = new_secret(stack, SecretString="0"), str(uuid.uuid4())
    pending = {"SecretId": arn, "ClientRequestToken": token, "VersionStages": ["AWSPENDING"]}
    first = secrets.put_secret_value(**pending, SecretString="1")
    again = secrets.put_secret_value(**pending, SecretString="1")
    assert again["VersionId"] == first["VersionId"] and again["VersionStages"] == ["AWSPENDING"]
    for other in ({"SecretString": "2"}, {"SecretBinary": b"1"}):
        with Refused() as refused:
            secrets.put_secret_value(**pending, **other)
        assert (refused.code, refused.status) == ("ResourceExistsException", 400)
    assert secrets.get_secret_value(SecretId=arn, VersionStage="AWSPENDING")["SecretString"] == "1"
    with Refused() as refused:
        secrets.put_secret_value(SecretId=arn)
    assert refused.code == "InvalidRequestException"


def test_a_stage_is_on_one_version_and_awsprevious_follows_awscurrent(stack, secrets):
    arn = new_secret(stack, SecretString="0")
    [zero] = stages(secrets, arn)
    one, two, three = (str(uuid.uuid4()) for _ in range(3))
    for version in (one, two):
        pending = {"ClientRequestToken": version, "VersionStages": ["AWSPENDING"]}
        secrets.put_secret_value(SecretId=arn, SecretString=version, **pending)
    assert stages(secrets, arn) == {zero: ["AWSCURRENT"], two: ["AWSPENDING"]}
    with Refused() as refused:
        secrets.update_secret_version_stage(SecretId=arn, VersionStage="AWSCURRENT", RemoveFromVersionId=zero)
    assert refused.code == "InvalidParameterException"
    move = {"VersionStage": "AWSCURRENT", "MoveToVersionId": two, "RemoveFromVersionId": zero}
    secrets.update_secret_version_stage(SecretId=arn, **move)
    assert stages(secrets, arn) == {zero: ["AWSPREVIOUS"], two: ["AWSCURRENT", "AWSPENDING"]}
    secrets.update_secret_version_stage(SecretId=arn, VersionStage="AWSPENDING", RemoveFromVersionId=two)
    secrets.put_secret_value(SecretId=arn, SecretString="3", ClientRequestToken=three)
    assert stages(secrets, arn) == {two: ["AWSPREVIOUS"], three: ["AWSCURRENT"]}


class Rotator:
    """A rotation function that does the least, and fails the steps that it is told to."""

    def __init__(self, stack, *failures):
        self.secrets = stack.client("secretsmanager")
        self.failures = list(failures)
        self.events = []
        self.seen = []
        stack.aws.rotation.invoke = self

    def __call__(self, event):
        self.events.append(event)
        self.seen.append(stages(self.secrets, event["SecretId"]))
        named = {"SecretId": event["SecretId"], "ClientRequestToken": event["ClientRequestToken"]}
        if event["Step"] in self.failures:
            self.failures.remove(event["Step"])
            return Result(False, "told to fail", 200, b"", 0.0)
        if event["Step"] == "createSecret":
            pending = {"RotationToken": event["RotationToken"], "VersionStages": ["AWSPENDING"]}
            self.secrets.put_secret_value(**named, SecretString="new", **pending)
        if event["Step"] == "finishSecret":
            [old] = [version for version, found in self.seen[-1].items() if "AWSCURRENT" in found]
            move = {"MoveToVersionId": event["ClientRequestToken"], "RemoveFromVersionId": old}
            self.secrets.update_secret_version_stage(SecretId=event["SecretId"], VersionStage="AWSCURRENT", **move)
        return Result(True, None, 200, b"", 0.0)


def test_rotate_secret_calls_the_four_steps_on_a_version_without_a_value(stack, secrets):
    arn, token = new_secret(stack, SecretString="old"), str(uuid.uuid4())
    [old] = stages(secrets, arn)
    rotator = Rotator(stack)
    found = []

    def create_late(event):
        if event["Step"] == "createSecret":
            for version in ({"VersionId": token}, {"VersionStage": "AWSPENDING"}):
                with Refused() as refused:
                    secrets.get_secret_value(SecretId=arn, **version)
                found.append((refused.code, refused.status))
        return rotator(event)

    stack.aws.rotation.invoke = create_late
    function, rules = "arn:aws:lambda:us-east-1:000000000000:function:f", {"AutomaticallyAfterDays": 30}
    rotate = {"RotationLambdaARN": function, "RotationRules": rules, "ClientRequestToken": token}
    assert secrets.rotate_secret(SecretId=arn, **rotate)["VersionId"] == token
    steps = stack.aws.wait_for_rotation(arn)
    assert [(step.name, step.token, step.ok) for step in steps] == [(name, token, True) for name in STEPS]
    assert found == [("ResourceNotFoundException", 400)] * 2
    assert rotator.seen[0] == {old: ["AWSCURRENT"], token: ["AWSPENDING"]}
    assert all(e["SecretId"] == arn and e["ClientRequestToken"] == token and e["RotationToken"] for e in rotator.events)
    assert stages(secrets, arn) == {old: ["AWSPREVIOUS"], token: ["AWSCURRENT", "AWSPENDING"]}
    described = secrets.describe_secret(SecretId=arn)
    assert described["RotationEnabled"] is True
    assert (described["RotationLambdaARN"], described["RotationRules"]) == (function, rules)
    stack.aws.rotation.invoke = rotator
    # AWSPENDING on the version that became current is no unfinished rotation.
    assert secrets.rotate_secret(SecretId=arn)["VersionId"] != token
    assert [step.ok for step in stack.aws.wait_for_rotation(arn)] == [True] * 4
    secrets.cancel_rotate_secret(SecretId=arn)
    assert secrets.describe_secret(SecretId=arn)["RotationEnabled"] is False


def test_a_failed_step_makes_the_whole_rotation_start_again_with_its_token(stack, secrets):
    arn = new_secret(stack, SecretString="old")
    Rotator(stack, "testSecret")
    token = secrets.rotate_secret(SecretId=arn)["VersionId"]
    steps = stack.aws.wait_for_rotation(arn)
    assert [step.name for step in steps] == STEPS[:3] + STEPS
    assert {step.token for step in steps} == {token} and [s.name for s in steps if not s.ok] == ["testSecret"]
    assert secrets.get_secret_value(SecretId=arn)["SecretString"] == "new"


def test_an_unfinished_rotation_is_attempted_again_instead_of_a_new_one(stack, secrets):
    arn = new_secret(stack, SecretString="old")
    Rotator(stack, "setSecret", "setSecret")
    token = secrets.rotate_secret(SecretId=arn)["VersionId"]
    assert [step.ok for step in stack.aws.wait_for_rotation(arn)] == [True, False] * 2
    with Refused() as refused:
        secrets.rotate_secret(SecretId=arn)
    assert refused.code == "InvalidRequestException"
    assert refused.message == "A previous rotation isn't complete. That rotation will be reattempted."
    assert [(step.token, step.ok) for step in stack.aws.wait_for_rotation(arn)] == [(token, True)] * 4
    assert secrets.get_secret_value(SecretId=arn)["VersionId"] == token


def test_rotation_that_is_not_immediate_calls_test_secret_alone_on_a_temporary_version(stack, secrets):
    arn = new_secret(stack, SecretString="old")
    before = stages(secrets, arn)
    rotator = Rotator(stack)
    token = secrets.rotate_secret(SecretId=arn, RotateImmediately=False)["VersionId"]
    assert [step.name for step in stack.aws.wait_for_rotation(arn)] == ["testSecret"]
    assert rotator.seen == [before | {token: ["AWSPENDING"]}]
    assert stages(secrets, arn) == before and secrets.describe_secret(SecretId=arn)["RotationEnabled"]


BOOTSTRAP = """#!/usr/bin/env python3
import json, os, urllib.request
api = "http://" + os.environ["AWS_LAMBDA_RUNTIME_API"] + "/2018-06-01/runtime/invocation/"
while True:
    with urllib.request.urlopen(api + "next") as next:
        id, event = next.headers["Lambda-Runtime-Aws-Request-Id"], next.read()
    end, body = "response", event
    if json.loads(event)["Step"] == "testSecret":
        end, body = "error", b'{"errorMessage": "told to fail", "errorType": "Told"}'
    urllib.request.urlopen(urllib.request.Request(api + id + "/" + end, body)).close()
"""


def test_rotate_secret_calls_the_deployed_function_if_its_policy_lets_secrets_manager_in(stack, secrets):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        bootstrap = zipfile.ZipInfo("bootstrap")
        bootstrap.external_attr = 0o755 << 16
        file.writestr(bootstrap, BOOTSTRAP)
    functions, arn = stack.client("lambda"), new_secret(stack, SecretString="old")
    function = functions.create_function(
        FunctionName=f"f-{uuid.uuid4().hex}",
        Runtime="provided.al2023",
        Role=stack.role(trust={"Version": "2012-10-17", "Statement": [
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
    with Refused() as refused:
        secrets.rotate_secret(SecretId=arn, RotationLambdaARN=function)
    assert refused.code == "AccessDeniedException"
    assert "RotationEnabled" not in secrets.describe_secret(SecretId=arn)
    let_in(SourceArn=arn, SourceAccount="000000000000")
    stack.aws.rotation.retries = 0
    token = secrets.rotate_secret(SecretId=arn, RotationLambdaARN=function)["VersionId"]
    steps = stack.aws.wait_for_rotation(arn)
    assert [(step.name, step.ok) for step in steps] == list(zip(STEPS, (True, True, False)))
    assert {name: steps[0].body[name] for name in ("Step", "SecretId", "ClientRequestToken")} == {
        "Step": "createSecret",
        "SecretId": arn,
        "ClientRequestToken": token,
    }
    assert steps[2].body["errorMessage"] == "told to fail"


def test_secrets_are_rotated_and_written_only_with_permission(stack, secrets):
    arn = new_secret(stack, SecretString="old")
    before = stages(secrets, arn)
    reader = client_of(stack, "secretsmanager", session_of(stack, allow("secretsmanager:DescribeSecret", resource=arn)))
    [version] = stages(reader, arn)
    for call, parameters in [
        ("rotate_secret", {}),
        ("cancel_rotate_secret", {}),
        ("get_secret_value", {}),
        ("put_secret_value", {"SecretString": "new"}),
        ("put_secret_value", {"SecretString": "new", "ClientRequestToken": version}),
        ("update_secret_version_stage", {"VersionStage": "x", "MoveToVersionId": version}),
    ]:
        with Refused() as refused:
            getattr(reader, call)(SecretId=arn, **parameters)
        assert refused.code == "AccessDeniedException", call
    assert stages(secrets, arn) == before


def ask_braintrust(server, key, method, path="", body=None):
    url = f"{server.url}/v1/service_token{path}"
    headers = {"authorization": f"Bearer {key}"}
    try:
        with urlopen(Request(url, json.dumps(body).encode() if body else None, headers, method=method)) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, error.read().decode()


def test_a_service_token_makes_others_whose_keys_are_shown_once_and_end_with_them(bench):
    server = bench.braintrust
    id, key = server.add_service_token("account")
    _, member = server.add_service_token("account", owner=False)
    new = {"name": "rotated", "service_account_id": "account"}
    assert ask_braintrust(server, bench.api_key, "POST", body=new)[0] == 403
    assert ask_braintrust(server, member, "POST", body=new)[0] == 403
    assert ask_braintrust(server, key, "POST", body={**new, "service_account_id": "another"})[0] == 400
    assert ask_braintrust(server, key, "POST", body={**new, "org_name": "Another"})[0] == 400
    status, made = ask_braintrust(server, key, "POST", body=new)
    assert status == 200 and made["key"].startswith("bt-st-")
    _, listed = ask_braintrust(server, made["key"], "GET")
    shown = {k: v for k, v in made.items() if k != "key"}
    assert shown in listed["objects"] and made["key"] not in json.dumps(listed)
    assert ask_braintrust(server, key, "GET", f"/{made['id']}") == (200, shown)
    assert ask_braintrust(server, made["key"], "DELETE", f"/{id}")[0] == 200
    assert ask_braintrust(server, key, "GET")[0] == 401
    assert ask_braintrust(server, made["key"], "GET", f"/{id}")[0] == 404
