"""Rotates in the local stack, and observes what that does: the calls of the function, and calls to a model with what
Braintrust holds.
"""

import http.client
import json
import time
import uuid
from dataclasses import dataclass
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from environment import ROOT
from support.deployment import invoke, report_of
from support.upstream import is_from_root

MODEL = "amazon.nova-lite-v1:0"
QUESTION = {"messages": [{"role": "user", "content": [{"text": "Hello"}]}], "inferenceConfig": {"maxTokens": 1}}
EVENT = json.loads((ROOT / "events/schedule.json").read_text())


@dataclass
class ModelCall:
    """A call to a model with the credentials that Braintrust's gateway would use."""

    credential: str
    works: bool
    refusal: str = ""


def call_model(stack, ai_secret):
    found = stack.braintrust.credentials(ai_secret)
    is_api_key = found["auth_type"] == "api_key"
    url = f"{stack.aws.url}/model/{MODEL}/converse"
    request = AWSRequest("POST", url, {"content-type": "application/json"}, json.dumps(QUESTION))
    if is_api_key:
        request.headers["authorization"] = f"Bearer {found['secret']}"
    else:
        credentials = Credentials(found["access_key"], found["secret"], found["session_token"])
        SigV4Auth(credentials, "bedrock", found["region"]).add_auth(request)
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.request("POST", urlsplit(url).path, request.body, dict(request.headers.items()))
    answer = connection.getresponse()
    body = json.loads(answer.read() or "{}")
    connection.close()
    error = answer.headers.get("x-amzn-errortype", "")
    refusal = f"{answer.status} {error}: {body.get('message', '')}".rstrip(": .")
    credential = "a Bedrock API key" if is_api_key else found["access_key"]
    return ModelCall(credential, answer.status == 200, refusal)


class Recorder:
    """The function's successful calls since the recorder was made."""

    def __init__(self, stack):
        self._servers = [stack.aws, stack.braintrust]
        self._before = [len(server.requests) for server in self._servers]

    def calls(self):
        recorded = [server.requests[n:] for server, n in zip(self._servers, self._before, strict=True)]
        calls = [call for calls in recorded for call in calls if call.status == 200 and not is_from_root(call)]
        return sorted(calls, key=lambda call: call.at)


@dataclass
class Invocation:
    """`calls` are those up to its end."""

    name: str
    report: dict | str
    failed: bool
    milliseconds: float
    calls: list


def by_schedule(stack, outputs):
    """Yields two scheduled runs, the second of which finds the function warm."""
    recorder = Recorder(stack)
    for name in ("A scheduled run", "A second one, with the function warm"):
        start = time.monotonic()
        # An event with the same ID would count as the first one, delivered again.
        event = json.dumps(EVENT | {"id": str(uuid.uuid4())})
        report, failed = invoke(stack, outputs["FunctionName"], event)
        yield Invocation(name, report, failed, (time.monotonic() - start) * 1000, recorder.calls())


def by_secrets_manager(stack, outputs):
    """Yields the four rotation steps."""
    recorder, secret = Recorder(stack), outputs["StagedSecretArn"]
    stack.client("secretsmanager").rotate_secret(
        SecretId=secret, RotationLambdaARN=outputs["FunctionArn"], RotationRules={"AutomaticallyAfterDays": 30}
    )
    steps, calls = stack.aws.wait_for_rotation(secret), recorder.calls()
    for step in steps:
        report = report_of(step.body)
        yield Invocation(step.name, report, not step.ok, report["duration_ms"] if step.ok else 0, calls)


TRIGGERS = {"schedule": by_schedule, "rotation": by_secrets_manager}
