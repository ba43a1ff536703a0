"""The local Bedrock accepts and refuses access keys and API keys as the real one does."""

import base64
import json
import time
from datetime import datetime, timezone
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from support.aws_clients import allow, client_of, new_access_key, new_long_term_key, refused, session_of
from support.issued_credentials import IssuedCredential

BEDROCK = "bedrock.amazonaws.com"
VECTORS = json.loads(Path(__file__).with_name("vectors").joinpath("short_term_api_key.json").read_text())["vectors"]
INVALID = (403, "AccessDeniedException", "Authentication failed: Please make sure your API Key is valid.")
EXPIRED = (403, "AccessDeniedException", "Bearer Token has expired")


def short_term_key(credentials, region="us-east-1", seconds=900):
    action = {"Action": "CallWithBearerToken"}
    request = AWSRequest("POST", f"https://{BEDROCK}/", params=action, headers={"host": BEDROCK})
    SigV4QueryAuth(Credentials(*credentials), "bedrock", region, expires=seconds).add_auth(request)
    url = request.url.removeprefix("https://") + "&Version=1"
    return "bedrock-api-key-" + base64.b64encode(url.encode()).decode()


def ask_bedrock(cloud, key, path="/foundation-models", body=None):
    """Sends a request with an API key, and returns the status, the error's type and the body."""
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    request = Request(cloud.aws.url + path, json.dumps(body).encode() if body else None, headers)
    try:
        with urlopen(request) as answer:
            return answer.status, None, json.load(answer)
    except HTTPError as error:
        return error.code, error.headers["x-amzn-ErrorType"], json.load(error)


def why(cloud, key):
    status, type, body = ask_bedrock(cloud, key)
    return status, type, body.get("Message")


@pytest.mark.parametrize("end", ["inactive", "deleted"])
def test_bedrock_does_not_know_an_access_key_that_is(world, cloud, end):
    user = world.new_user()
    keys = new_access_key(cloud, user)
    bedrock, iam = client_of(cloud, "bedrock", keys), cloud.client("iam")
    assert bedrock.list_foundation_models()["modelSummaries"]
    if end == "inactive":
        iam.update_access_key(UserName=user, AccessKeyId=keys[0], Status="Inactive")
    else:
        iam.delete_access_key(UserName=user, AccessKeyId=keys[0])
    with refused() as refusal:
        bedrock.list_foundation_models()
    assert (refusal.code, refusal.status) == ("UnrecognizedClientException", 403)
    assert not cloud.aws.works(*keys, "us-east-1")


@pytest.mark.parametrize("end", ["inactive", "expired", "reset", "deleted"])
def test_bedrock_refuses_a_long_term_key_that_is(world, cloud, end):
    iam, user = cloud.client("iam"), world.new_user()
    made = new_long_term_key(cloud, user, CredentialAgeDays=1)
    key, named = made["ServiceCredentialSecret"], {"UserName": user}
    named["ServiceSpecificCredentialId"] = id = made["ServiceSpecificCredentialId"]
    assert ask_bedrock(cloud, key)[2]["modelSummaries"] and cloud.aws.key_works(key, "us-east-1")
    if end == "inactive":
        iam.update_service_specific_credential(**named, Status="Inactive")
    elif end == "expired":
        cloud.aws.api_keys[id].expires = datetime.now(timezone.utc)
        [listed] = iam.list_service_specific_credentials(UserName=user)["ServiceSpecificCredentials"]
        assert listed["Status"] == "Expired"
    elif end == "reset":
        new = iam.reset_service_specific_credential(**named)["ServiceSpecificCredential"]["ServiceCredentialSecret"]
        assert cloud.aws.key_works(new, "us-east-1")
    else:
        iam.delete_service_specific_credential(**named)
    assert why(cloud, key) == (EXPIRED if end == "expired" else INVALID)
    assert not cloud.aws.key_works(key, "us-east-1")


@pytest.mark.parametrize("kind", ["access_key", "long_term_api_key", "short_term_api_key"])
def test_new_credentials_are_unknown_for_a_while(world, cloud, kind):
    user = world.new_user()
    cloud.aws.new_credentials_unknown_for = 0.5
    if kind == "long_term_api_key":
        key = new_long_term_key(cloud, user)["ServiceCredentialSecret"]
    else:
        keys = new_access_key(cloud, user)
        key = short_term_key(keys)
    works = cloud.aws.works if kind == "access_key" else cloud.aws.key_works
    asked = (*keys, "us-east-1") if kind == "access_key" else (key, "us-east-1")
    assert not works(*asked)
    time.sleep(0.6)
    assert works(*asked)


def test_short_term_keys_work_in_their_region_while_their_session_and_they_last(cloud):
    session = session_of(cloud, allow("bedrock:CallWithBearerToken", "bedrock:ListFoundationModels"))
    key = short_term_key(session, "eu-central-1")
    assert ask_bedrock(cloud, key)[2]["modelSummaries"]
    assert cloud.aws.key_works(key, "eu-central-1") and not cloud.aws.key_works(key, "us-east-1")
    cloud.aws.bedrock_region = "us-east-1"
    try:
        assert why(cloud, key) == INVALID
    finally:
        cloud.aws.bedrock_region = None
    brief = short_term_key(session, seconds=1)
    time.sleep(1.1)
    assert why(cloud, brief) == EXPIRED
    for seconds in (0, 43201):
        assert why(cloud, short_term_key(session, seconds=seconds)) == INVALID
    id, secret, token = session
    cloud.aws.issued.add(id, IssuedCredential(secret, token, datetime.now(timezone.utc)))
    assert why(cloud, key) == EXPIRED


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_official_generators_keys_are_verified_to_the_byte(cloud, vector):
    cloud.aws.issued.add(
        vector["access_key_id"], IssuedCredential(vector["secret_access_key"], vector["session_token"])
    )
    # The keys are from January 2026. Only one with a valid signature is refused because it has expired.
    assert why(cloud, vector["token"]) == EXPIRED
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
        assert why(cloud, "bedrock-api-key-" + base64.b64encode(wrong.encode()).decode()) == INVALID, wrong
    cloud.aws.issued.add(vector["access_key_id"], IssuedCredential("another secret", vector["session_token"]))
    assert why(cloud, vector["token"]) == INVALID


@pytest.mark.parametrize(
    "missing", ["bedrock:CallWithBearerToken", "bedrock:ListFoundationModels", "bedrock:BearerTokenType"]
)
def test_a_key_may_do_what_its_owner_may(world, cloud, missing):
    actions = {"bedrock:CallWithBearerToken", "bedrock:ListFoundationModels"} - {missing}

    def statement(own, other):
        types = {"StringEquals": {"bedrock:BearerTokenType": own if missing != "bedrock:BearerTokenType" else other}}
        return allow(*actions, **types)

    user = world.new_user()
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement("LONG_TERM", "SHORT_TERM")]})
    cloud.client("iam").put_user_policy(UserName=user, PolicyName="bedrock", PolicyDocument=policy)
    long_term = new_long_term_key(cloud, user)["ServiceCredentialSecret"]
    short_term = short_term_key(session_of(cloud, statement("SHORT_TERM", "LONG_TERM")))
    for key in (long_term, short_term):
        status, type, body = ask_bedrock(cloud, key)
        assert (status, type) == (403, "AccessDeniedException")
        assert "is not authorized to perform: bedrock:" in (body.get("Message") or body["message"])


def test_keys_may_converse(world, cloud):
    user, statement = world.new_user(), allow("bedrock:CallWithBearerToken", "bedrock:InvokeModel")
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    cloud.client("iam").put_user_policy(UserName=user, PolicyName="bedrock", PolicyDocument=policy)
    session = session_of(cloud, statement)
    body = {"messages": [{"role": "user", "content": [{"text": "."}]}], "inferenceConfig": {"maxTokens": 1}}
    model = "amazon.nova-micro-v1:0"
    for key in (new_long_term_key(cloud, user)["ServiceCredentialSecret"], short_term_key(session)):
        status, _, answer = ask_bedrock(cloud, key, f"/model/{model}/converse", body)
        assert status == 200 and answer["output"]["message"]["role"] == "assistant" and answer["stopReason"]
    signed = client_of(cloud, "bedrock-runtime", session).converse(modelId=model, **body)
    assert signed["output"]["message"]["role"] == "assistant"
