"""What every test of the function has: the local stack, a Braintrust of its own, and the real bootstrap under Lambda's runtime API."""

import os
import uuid
from pathlib import Path

import pytest
from local.braintrust import Braintrust
from local.function import Function
from local.stack import Stack

ROOT = Path(__file__).parent.parent
BOOTSTRAP = Path(os.environ.get("BOOTSTRAP", ROOT / ".aws-sam/build/RotatorFunction/bootstrap"))
MINISTACK = Path(os.environ.get("MINISTACK", ROOT / ".tools/ministack/bin/ministack"))

OLD = {"auth_type": "iam_credentials", "access_key": "ASIAOLD", "session_token": "old-token", "region": "us-east-1"}
REGION = "us-east-1"


@pytest.fixture(scope="session")
def stack():
    with Stack(MINISTACK) as stack:
        yield stack


@pytest.fixture(scope="session")
def role(stack):
    """A role that the function may assume and that may list the foundation models."""
    return stack.role()


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
        found = (server or self.braintrust).credentials(ai_secret)
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
    import json

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
