"""Rotations on moto, an independent implementation of IAM, STS and Secrets Manager, with signatures and permissions.

A test that moto can't run is skipped with the reason, after a check that the reason still applies.
`make test-independent` installs moto and runs these tests.
"""

import json
import uuid

import pytest
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError
from support.events import FORCED, ROLLBACK, scheduled_run
from support.lambda_function import LambdaFunction
from support.local_braintrust import LocalBraintrust
from support.local_cloud import REGION
from support.moto_server import MotoServer
from support.paths import BOOTSTRAP, MOTO

pytestmark = pytest.mark.independent
if not MOTO.exists():
    pytest.skip("make test-independent installs moto", allow_module_level=True)
# The AWS SDK for Rust doesn't find the error codes in moto's refusals, so the function retries refused calls.
TIMEOUT = 8
LISTS_MODELS = ("bedrock:ListFoundationModels", "bedrock:CallWithBearerToken")
OF_THE_FUNCTION = ("sts:AssumeRole", "iam:*AccessKey*", "iam:*ServiceSpecificCredential*", "secretsmanager:*")


@pytest.fixture(scope="module")
def moto():
    moto = MotoServer(MOTO)
    yield moto
    moto.stop()


class OnMoto:
    """A function on moto, and one target of it."""

    def __init__(self, moto: MotoServer, kind: str, is_staged: bool, caller=None, value=None):
        self.moto = moto
        self.braintrust = LocalBraintrust().start()
        self.braintrust.add_key("sk-key")
        metadata = {"access_key": "AKIAOLD", "session_token": "old", "region": REGION}
        self.ai_secret = self.braintrust.add_ai_secret("AWS Bedrock", metadata=metadata, secret="old")
        secrets = moto.client("secretsmanager")
        self.target = {"name": "prod", "kind": kind, "region": REGION, "ai_secrets": [{"id": self.ai_secret}]}
        if is_staged:
            value = {} if value is None else {"SecretString": value}
            self.target["secret_id"] = secrets.create_secret(Name=f"staged-{uuid.uuid4().hex}", **value)["ARN"]
        key = caller or moto.new_key(moto.new_user(*OF_THE_FUNCTION))
        if kind in ("access_key", "long_term_api_key"):
            self.target |= {"user_name": moto.new_user(*LISTS_MODELS), "overlap": "0m"}
        else:
            self.target["role_arn"] = moto.new_role(*LISTS_MODELS, trusts="*")
        api_key = secrets.create_secret(Name=f"key-{uuid.uuid4().hex}", SecretString="sk-key")["ARN"]
        variables = {
            "TARGETS": json.dumps([self.target]),
            "BRAINTRUST_API_KEY_SECRET_ID": api_key,
            "BRAINTRUST_API_URL": self.braintrust.url,
            "AWS_ENDPOINT_URL": moto.url,
            "AWS_REGION": REGION,
            **{name.upper(): value for name, value in key.items()},
        }
        self.function = LambdaFunction(BOOTSTRAP, variables, timeout=TIMEOUT)

    def stop(self):
        self.function.stop()
        self.braintrust.stop()
        assert self.braintrust.violations == []

    def run(self, event: dict) -> str:
        result = self.function.invoke(event)
        report = result.body if result.ok else result.report_in_error()
        return report["targets"][0]["outcome"]

    def works(self) -> bool:
        """Whether moto accepts the credentials in Braintrust."""
        found = self.braintrust.credentials(self.ai_secret)
        pair = {"aws_access_key_id": found["access_key"], "aws_secret_access_key": found["secret"]}
        session = self.moto.client("sts", **pair, aws_session_token=found["session_token"])
        try:
            session.get_caller_identity()
        except ClientError:
            return False
        return True

    def staged(self) -> dict:
        # If no stage is given, moto returns the version that was current first.
        current = {"SecretId": self.target["secret_id"], "VersionStage": "AWSCURRENT"}
        secret = self.moto.client("secretsmanager").get_secret_value(**current)
        return json.loads(secret["SecretString"])

    def stages(self) -> dict[str, str]:
        described = self.moto.client("secretsmanager").describe_secret(SecretId=self.target["secret_id"])
        versions = described.get("VersionIdsToStages", {})
        return {stage: version for version, stages in versions.items() for stage in stages}

    def keys(self) -> dict[str, bool]:
        listed = self.moto.client("iam").list_access_keys(UserName=self.target["user_name"])["AccessKeyMetadata"]
        return {key["AccessKeyId"]: key["Status"] == "Active" for key in listed}


@pytest.fixture
def on_moto(moto):
    started = []

    def on_moto(*arguments, **options):
        started.append(OnMoto(moto, *arguments, **options))
        return started[-1]

    yield on_moto
    for each in started:
        each.stop()


@pytest.mark.parametrize("is_staged", [False, True])
def test_temporary_credentials_are_rotated(on_moto, is_staged):
    it = on_moto("temporary", is_staged)
    for _ in range(2):
        before = it.braintrust.credentials(it.ai_secret)["access_key"]
        assert it.run(scheduled_run()) == "rotated"
        assert it.works() and it.braintrust.credentials(it.ai_secret)["access_key"] != before
    if is_staged:
        assert it.staged()["aws_access_key_id"] == it.braintrust.credentials(it.ai_secret)["access_key"]
        assert "AWSPENDING" not in it.stages()


@pytest.mark.parametrize("value", [None, "{}"])
def test_an_access_key_is_rotated_and_the_previous_one_is_retired(on_moto, value):
    it = on_moto("access_key", True, value=value)
    assert it.run(scheduled_run()) == "rotated"
    [first] = it.keys()
    assert it.works() and it.staged()["credential_id"] == first and "AWSPENDING" not in it.stages()
    assert it.run(scheduled_run()) == "not_due"
    assert it.run(FORCED) == "rotated"
    second = it.staged()["credential_id"]
    assert it.works() and it.keys() == {first: False, second: True}
    assert it.run(scheduled_run()) == "not_due"
    assert it.keys() == {second: True} and it.works()


def test_a_rollback_restores_the_previous_credentials(on_moto):
    it = on_moto("temporary", True)
    assert [it.run(event) for event in (scheduled_run(), scheduled_run())] == ["rotated", "rotated"]
    previous = it.stages()["AWSPREVIOUS"]
    assert it.run(ROLLBACK) == "rolled_back"
    assert it.stages()["AWSCURRENT"] == previous and it.works()
    assert it.staged()["aws_access_key_id"] == it.braintrust.credentials(it.ai_secret)["access_key"]


def test_moto_checks_signatures(moto, on_moto):
    key = moto.new_key(moto.new_user(*OF_THE_FUNCTION))
    it = on_moto("temporary", False, caller=key | {"aws_secret_access_key": "x" * 40})
    assert it.run(scheduled_run()) == "failed"
    assert it.braintrust.credentials(it.ai_secret)["secret"] == "old"


def test_moto_checks_permissions(moto, on_moto):
    allowed = [action for action in OF_THE_FUNCTION if action != "sts:AssumeRole"]
    it = on_moto("temporary", False, caller=moto.new_key(moto.new_user(*allowed)))
    assert it.run(scheduled_run()) == "failed"
    assert it.braintrust.credentials(it.ai_secret)["secret"] == "old"


def test_long_term_api_keys_cannot_be_tried(moto):
    iam, user = moto.client("iam"), moto.new_user(*LISTS_MODELS)
    with pytest.raises((ClientError, ResponseParserError)):
        iam.create_service_specific_credential(UserName=user, ServiceName="bedrock.amazonaws.com")
    pytest.skip("moto's IAM has no service-specific credentials, so long-term API keys can't be tried")


def test_short_term_api_keys_cannot_be_tried(on_moto):
    it = on_moto("short_term_api_key", False)
    assert it.run(scheduled_run()) == "failed"
    pytest.skip("moto checks no bearer tokens, so short-term API keys can't be tried")


def test_rotate_secret_cannot_be_tried():
    pytest.skip("moto's RotateSecret calls only functions in Docker, so Secrets Manager's steps can't be tried")
