"""The server in front of ministack: it records each AWS call, adds what ministack lacks, and forwards the rest."""

import json
import re
import uuid
from dataclasses import replace
from datetime import datetime, timedelta

from . import session_trust
from .aws_models import AwsModels
from .aws_replies import json_error, xml_error
from .http_messages import RecordedRequest, Reply
from .issued_credentials import IssuedCredentials
from .local_bedrock_keys import LocalBedrockKeys, bearer
from .local_iam import LocalIam, LongTermKey, iso8601
from .local_rotation import CalledStep
from .local_secrets_manager import LocalSecretsManager
from .recording_server import RecordingServer
from .upstream import Upstream, form, is_from_root, signer

_REQUEST_ID = "x-amzn-requestid"
_HANDS_OUT_CREDENTIALS = ("sts:AssumeRole", "iam:CreateAccessKey")
_LISTS_KEYS = ("iam:ListAccessKeys", "iam:ListServiceSpecificCredentials")
_LISTED_KEY = re.compile(
    rb"<member>(?:(?!</member>).)*<(?:AccessKeyId|ServiceSpecificCredentialId)>([^<]+)<.*?</member>", re.DOTALL
)
_REST_CALLS = [
    (re.compile(r"GET /foundation-models"), "bedrock:ListFoundationModels"),
    (re.compile(r"POST /model/[^/]+/converse"), "bedrock:Converse"),
    (re.compile(r"POST /model/[^/]+/invoke"), "bedrock:InvokeModel"),
]
_BEDROCK_HOST = re.compile(r"bedrock(?:-runtime)?\.([a-z0-9-]+)\.amazonaws\.com(?::\d+)?")
# ministack doesn't limit the sessions of role chaining to one hour.
_CHAINED_TOO_LONG = xml_error(
    "sts",
    400,
    "ValidationError",
    "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining",
)
_UNKNOWN = json_error(403, "UnrecognizedClientException", "The security token included in the request is invalid.")


# The creation time of an IAM key or a secret.
_CREATION = re.compile(rb'(?<=<CreateDate>)([^<]+)|(?<="CreatedDate": )([0-9.]+)')
# ministack confirms an email's subscription at once. In AWS, its owner does, and nobody reads the emails of a test.
_EMAIL_SUBSCRIPTION = re.compile(rb"(?<=<SubscriptionArn>)[^<]+(?=(?:(?!</member>).)*<Protocol>email<)", re.DOTALL)
SHOWN_OLDER_BY = timedelta(seconds=150)


class LocalAws(RecordingServer):
    def __init__(self, ministack_port: int, tls: tuple[str, str] | None = None):
        super().__init__(tls)
        self.new_credentials_unknown_for = 0.0
        # For how many seconds IAM's lists leave out a new key. Root's lists are always complete.
        self.new_keys_unlisted_for = 0.0
        # By how much IAM's lists and DescribeSecret show keys and secrets as older than they are. The function doesn't
        # touch keys that are younger than two minutes, and most tests would have to wait for that.
        self.shown_older_by = SHOWN_OLDER_BY
        # The region of requests with an API key whose Host names none; None means the key's own region.
        self.bedrock_region: str | None = None
        self._upstream = Upstream(ministack_port)
        self.issued = IssuedCredentials()
        self._iam = LocalIam(self._upstream, self.issued)
        self._bedrock_keys = LocalBedrockKeys(self._upstream, self._iam, self.issued, self._is_unknown)
        self.secrets_manager = LocalSecretsManager(self._upstream)
        self.rotation = self.secrets_manager.rotation
        # Checks the function's requests. Violations of AWS's models are collected in `violations`.
        self.models: AwsModels | None = None
        self.violations: list[str] = []

    @property
    def issued_secrets(self) -> set[str]:
        return self.issued.secrets

    @property
    def api_keys(self) -> dict[str, LongTermKey]:
        """The long-term Bedrock API keys by ID. A test may make one expire."""
        return self._iam.api_keys

    def works(self, access_key: str, secret: str, session_token: str | None, region: str) -> bool:
        """Whether Bedrock accepts these credentials. Not recorded, and not affected by faults."""
        from botocore.credentials import Credentials

        if self._is_unknown(access_key):
            return False
        credentials = Credentials(access_key, secret, session_token)
        request = self._upstream.signed(credentials, "GET", "/foundation-models", region)
        return self._upstream.forward(request, self.issued.condition_keys(access_key)).status == 200

    def key_works(self, api_key: str, region: str) -> bool:
        """Whether Bedrock accepts this API key in that region. Not recorded, and not affected by faults."""
        request = RecordedRequest("GET", "/foundation-models", {}, b"", call="bedrock:ListFoundationModels")
        return self._bedrock_keys.answer(api_key, request, region).status == 200

    def let_time_pass(self, passed: timedelta, user: str | None, secret_id: str):
        """Makes this user's keys and everything that has happened to this secret that much older."""
        if user:
            self._iam.let_time_pass(user, passed)
        self.secrets_manager.let_time_pass(secret_id, passed.total_seconds())

    def begin_rotation(self, secret_id: str, token: str, region: str = "us-east-1"):
        """Does what RotateSecret does before the first step. The caller calls the steps."""
        self.rotation.begin(secret_id, token, region)

    def wait_for_rotation(self, secret_id: str, timeout: float = 60) -> list[CalledStep]:
        """Waits until the rotation that RotateSecret began has ended, and returns its steps, repeated ones included."""
        return self.rotation.wait(secret_id, timeout)

    def call_name(self, request: RecordedRequest) -> str:
        line = f"{request.method} {request.path}"
        for pattern, name in _REST_CALLS:
            if pattern.fullmatch(line):
                return name
        _, _, service = signer(request)
        if target := request.headers.get("x-amz-target"):
            return f"{service}:{target.rpartition('.')[2]}"
        if action := form(request).get("Action"):
            return f"{service}:{action}"
        return f"{service} {line}"

    def inspect(self, request: RecordedRequest, reply: Reply | None):
        if reply is None and self.models:
            self.violations += self.models.violations(request)

    def handle(self, request: RecordedRequest) -> Reply:
        reply = self._carry_out(request)
        # ministack's replies have an ID, and those that are made here get one.
        request.id = reply.headers.get(_REQUEST_ID) or str(uuid.uuid4())
        return replace(reply, headers={**reply.headers, _REQUEST_ID: request.id})

    def _carry_out(self, request: RecordedRequest) -> Reply:
        service = request.call.partition(":")[0]
        if service == "bedrock":
            return self._bedrock(request)
        if service == "sts" and _is_chained_too_long(request):
            return _CHAINED_TOO_LONG
        if request.call == "iam:SimulatePrincipalPolicy":
            return self._upstream.forward(request, _context_of(form(request)))
        if request.call == "iam:PutRolePolicy":
            return self._upstream.forward(request, self._iam.boundary_of_role(request))
        if service == "iam" and (boundary := form(request).get("PermissionsBoundary")):
            return self._upstream.forward(request, {"iam:PermissionsBoundary": boundary})
        own = {"iam": self._iam, "secretsmanager": self.secrets_manager}.get(service)
        answer = own.answer(request) if own else None
        answer = answer or self._upstream.forward(request)
        # A role that refuses the caller altogether says so first.
        if request.call == "sts:AssumeRole" and answer.status == 200:
            if refused := session_trust.refusal(self._upstream, request):
                return refused
        if request.call in _HANDS_OUT_CREDENTIALS and answer.status == 200:
            duration = timedelta(seconds=int(form(request).get("DurationSeconds", "3600")))
            self.issued.read(answer, duration)
        if request.call == "sns:ListSubscriptionsByTopic":
            return replace(answer, body=_EMAIL_SUBSCRIPTION.sub(b"PendingConfirmation", _bytes(answer)))
        if answer.status == 200 and not is_from_root(request):
            if request.call in _LISTS_KEYS:
                return self._older(self._without_young_keys(answer))
            if request.call == "secretsmanager:DescribeSecret":
                return self._older(answer)
        return answer

    def _older(self, answer: Reply) -> Reply:
        def older(date: re.Match) -> bytes:
            if date[1]:
                return iso8601(datetime.fromisoformat(date[1].decode()) - self.shown_older_by).encode()
            return str(float(date[2]) - self.shown_older_by.total_seconds()).encode()

        return replace(answer, body=_CREATION.sub(older, _bytes(answer)))

    def _without_young_keys(self, answer: Reply) -> Reply:
        def listed(key: re.Match) -> bytes:
            return b"" if self.issued.age(key[1].decode()) < self.new_keys_unlisted_for else key[0]

        return replace(answer, body=_LISTED_KEY.sub(listed, _bytes(answer)))

    def _bedrock(self, request: RecordedRequest) -> Reply:
        api_key = bearer(request)
        if api_key is not None:
            host = _BEDROCK_HOST.fullmatch(request.headers.get("host", ""))
            region = host[1] if host else self.bedrock_region
            return _with_error_type(self._bedrock_keys.answer(api_key, request, region))
        if self._is_unknown(signer(request)[0]):
            return _UNKNOWN
        return _with_error_type(self._upstream.forward(request, self.issued.condition_keys(signer(request)[0])))

    def _is_unknown(self, id: str) -> bool:
        return self.issued.age(id) < self.new_credentials_unknown_for


def _bytes(answer: Reply) -> bytes:
    return answer.body.encode() if isinstance(answer.body, str) else answer.body


def _context_of(asked: dict[str, str]) -> dict[str, str]:
    """The condition keys of a simulation, which ministack doesn't read."""
    entry = "ContextEntries.member.{}.ContextKey{}"
    numbers = [n for n in range(1, 10) if entry.format(n, "Name") in asked]
    return {asked[entry.format(n, "Name")]: asked[entry.format(n, "Values.member.1")] for n in numbers}


def _is_chained_too_long(request: RecordedRequest) -> bool:
    duration = form(request).get("DurationSeconds", "0")
    is_chained = request.call == "sts:AssumeRole" and signer(request)[0].startswith("ASIA")
    return is_chained and duration.isdigit() and int(duration) > 3600


def _with_error_type(answer: Reply) -> Reply:
    """Bedrock names the error in a header, where SDKs look first."""
    if answer.status < 400 or "x-amzn-errortype" in {name.lower() for name in answer.headers}:
        return answer
    try:
        body = json.loads(answer.body)
    except ValueError:
        return answer
    error_type = body.get("__type") or body.get("code")
    if not error_type:
        return answer
    headers = {**answer.headers, "x-amzn-errortype": error_type.rpartition("#")[2]}
    return Reply(answer.status, answer.body, headers, answer.content_type)
