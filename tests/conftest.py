"""What every test of the function has: the local stack, a Braintrust of its own, and the real bootstrap under Lambda's runtime API."""

import datetime
import json
import os
import uuid
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.braintrust import Braintrust
from support.function import Function
from support.stack import Stack
from support.tls import private_ca

ROOT = Path(__file__).parent.parent
BOOTSTRAP = Path(os.environ.get("BOOTSTRAP", ROOT / ".aws-sam/build/RotatorFunction/bootstrap"))
MINISTACK = Path(os.environ.get("MINISTACK", ROOT / ".tools/ministack/bin/ministack"))

OLD = {"auth_type": "iam_credentials", "access_key": "ASIAOLD", "session_token": "old-token", "region": "us-east-1"}
REGION = "us-east-1"


def pytest_terminal_summary(terminalreporter):
    """How many cases the tests went through that count them."""
    counted = Counter()
    for report in terminalreporter.stats.get("passed", []):
        counted.update(dict(report.user_properties))
    for name, cases in counted.items():
        terminalreporter.write_line(f"{name}: {cases} cases")


@pytest.fixture(scope="session")
def stack():
    with Stack(MINISTACK) as stack:
        yield stack


@pytest.fixture(scope="session")
def role(stack):
    """A role that the function may assume and that may list the foundation models."""
    return stack.role(allow=["bedrock:ListFoundationModels", "bedrock:CallWithBearerToken"])


class Bench:
    """One test's world: a Braintrust, the AWS that all tests share, and functions started with a configuration."""

    def __init__(self, stack, role):
        self.aws = stack.aws
        self.stack = stack
        self.role = role
        self.functions = []
        self.servers = []
        self.braintrust = self.new_braintrust()
        self.api_key = f"sk-{uuid.uuid4()}"
        self.braintrust.add_key(self.api_key)
        self.api_key_secret = stack.secret(self.api_key)

    def new_braintrust(self, tls=None):
        server = Braintrust(tls)
        server.start()
        self.servers.append(server)
        return server

    def ai_secret(self, name="AWS Bedrock", metadata=None, **options):
        metadata = dict(OLD) if metadata is None else metadata
        return self.braintrust.add_ai_secret(name, metadata=metadata, secret="old-secret", **options)

    def target(self, *ai_secrets, name="prod", **fields):
        ai_secrets = [{"id": a} if isinstance(a, str) else a for a in ai_secrets]
        target = {
            "name": name,
            "kind": "temporary",
            "role_arn": self.role,
            "region": REGION,
            "ai_secrets": ai_secrets,
            **fields,
        }
        return {field: value for field, value in target.items() if value is not None}

    def user(self):
        """An IAM user that may use Bedrock, and has no credentials yet."""
        name = f"user-{uuid.uuid4().hex[:12]}"
        iam = self.stack.client("iam")
        iam.create_user(UserName=name)
        actions = ["bedrock:ListFoundationModels", "bedrock:CallWithBearerToken"]
        policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}
        iam.put_user_policy(UserName=name, PolicyName="bedrock", PolicyDocument=json.dumps(policy))
        return name

    @contextmanager
    def execution_policy(self, allow=(), deny=()):
        """The function's role with more, or less, for a while."""
        iam, name = self.stack.client("iam"), f"more-{uuid.uuid4().hex[:8]}"
        statements = [("Allow", allow), ("Deny", deny)]
        statements = [{"Effect": e, "Action": list(actions), "Resource": "*"} for e, actions in statements if actions]
        policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
        iam.put_role_policy(RoleName="rotator-execution", PolicyName=name, PolicyDocument=policy)
        yield
        iam.delete_role_policy(RoleName="rotator-execution", PolicyName=name)

    def staged_secret(self):
        """A secret that holds nothing yet."""
        return self.stack.client("secretsmanager").create_secret(Name=f"staged-{uuid.uuid4().hex[:12]}")["ARN"]

    def staged_target(self, kind, ai_secret, **fields):
        """A target of any kind with a staged secret."""
        standing = kind in ("access_key", "long_term_api_key")
        fields = {"kind": kind, "secret_id": self.staged_secret(), **fields}
        if standing:
            # Without overlap, so that one tick deactivates and the next deletes.
            fields = {"role_arn": None, "user_name": self.user(), "overlap": "0m", **fields}
        return self.target(ai_secret, **fields)

    def staged(self, target, stage="AWSCURRENT"):
        """What consumers of the staged secret read."""
        answer = self.stack.client("secretsmanager").get_secret_value(SecretId=target["secret_id"], VersionStage=stage)
        return json.loads(answer["SecretString"])

    def stages(self, target):
        """The versions by stage."""
        answer = self.stack.client("secretsmanager").describe_secret(SecretId=target["secret_id"])
        versions = answer.get("VersionIdsToStages", {})
        return {stage: version for version, stages in versions.items() for stage in stages}

    def age(self, target, days=40):
        """Makes the current credentials older than they are."""
        held = self.staged(target)
        minted = datetime.datetime.fromisoformat(held["minted_at"]) - datetime.timedelta(days=days)
        held["minted_at"] = minted.strftime("%Y-%m-%dT%H:%M:%SZ")
        self.put(target, held)

    def put(self, target, held):
        """Makes another value the current one."""
        self.stack.client("secretsmanager").put_secret_value(
            SecretId=target["secret_id"], SecretString=json.dumps(held)
        )

    def mint_by_hand(self, kind, user):
        """A credential that the function did not make, or knows nothing of."""
        iam = self.stack.client("iam")
        if kind == "access_key":
            iam.create_access_key(UserName=user)
        else:
            iam.create_service_specific_credential(UserName=user, ServiceName="bedrock.amazonaws.com")

    def lose(self, target, id, how):
        """Deletes or deactivates one of the IAM user's credentials, as somebody else might."""
        iam, user = self.stack.client("iam"), target["user_name"]
        if target["kind"] == "access_key":
            call, named = "access_key", {"AccessKeyId": id}
        else:
            call, named = "service_specific_credential", {"ServiceSpecificCredentialId": id}
        if how == "deleted":
            getattr(iam, f"delete_{call}")(UserName=user, **named)
        else:
            getattr(iam, f"update_{call}")(UserName=user, Status="Inactive", **named)

    def listed(self, target):
        """The IAM user's credentials: id and whether it is active."""
        iam, user = self.stack.client("iam"), target.get("user_name")
        if user is None:
            return {}
        if target["kind"] == "access_key":
            found = iam.list_access_keys(UserName=user)["AccessKeyMetadata"]
            return {key["AccessKeyId"]: key["Status"] == "Active" for key in found}
        found = iam.list_service_specific_credentials(UserName=user)["ServiceSpecificCredentials"]
        return {key["ServiceSpecificCredentialId"]: key["Status"] == "Active" for key in found}

    def environment(self, *targets, **extra):
        return self.stack.environment(
            list(targets),
            **{
                "BRAINTRUST_API_URL": self.braintrust.url,
                "BRAINTRUST_API_KEY_SECRET_ID": self.api_key_secret,
                **extra,
            },
        )

    def function(self, *targets, timeout=300, **extra):
        function = Function(BOOTSTRAP, self.environment(*targets, **extra), timeout=timeout)
        self.functions.append(function)
        return function

    def rotate(self, *targets, event=None, **options):
        """One tick of a fresh function; fails the test if the function fails."""
        result = self.function(*targets, **options).invoke({"action": "rotate"} if event is None else event)
        assert result.ok, result.body
        return result.body

    def fail(self, *targets, event=None, **options):
        """One tick that must fail; answers its report, or the text of what was refused."""
        result = self.function(*targets, **options).invoke({"action": "rotate"} if event is None else event)
        assert not result.ok, result.body
        return refused(result)

    def holds_working_credentials(self, ai_secret, server=None):
        """Whether a gateway that reads this ai_secret could call Bedrock."""
        return self.work((server or self.braintrust).credentials(ai_secret))

    def work(self, found):
        """Whether Bedrock takes these credentials."""
        if found["auth_type"] == "api_key":
            return self.aws.key_works(found["secret"], found["region"])
        return self.aws.works(found["access_key"], found["secret"], found["session_token"], found["region"])

    def patches(self):
        return [request for request in self.braintrust.requests if request.method == "PATCH"]

    def aws_requests(self, call=None):
        """What the functions asked of AWS; what a test sets up as root does not count."""
        root = f"Credential={self.stack.ministack.root['AWS_ACCESS_KEY_ID']}/"
        requests = [r for r in self.aws.requests if root not in r.headers.get("authorization", "")]
        return [request for request in requests if call in (None, request.call)]

    def stop(self):
        for thing in [*self.functions, *self.servers]:
            thing.stop()
        self.aws.clear_faults()
        self.aws.latency = 0
        self.aws.new_credentials_unknown_for = 0


def refused(result):
    """The report in the error's message, or the message itself."""
    message = result.body["errorMessage"]
    try:
        return json.loads(message)
    except ValueError:
        return message


@pytest.fixture
def bench(stack, role):
    stack.aws.requests.clear()
    bench = Bench(stack, role)
    yield bench
    bench.stop()


@pytest.fixture
def private(bench, tmp_path):
    """A Braintrust whose certificate a private CA signed, and that CA's PEM."""
    tls, bundle = private_ca(tmp_path, "127.0.0.1")
    braintrust = bench.new_braintrust(tls)
    braintrust.add_key(bench.api_key)
    return braintrust, bundle
