"""Stands before ministack: names and records each AWS call, adds what ministack lacks, and forwards the rest."""

import html
import http.client
import json
import re
import threading
import time
from urllib.parse import parse_qs

from .server import Answer, Request, Server

_CREDENTIAL = re.compile(r"Credential=([^/,\s]+)/\d+/([^/]+)/([^/]+)/aws4_request")
_ACCESS_KEY_ID = re.compile(rb"<AccessKeyId>([^<]+)</AccessKeyId>")
_SECRET_PARTS = re.compile(rb"<(?:SecretAccessKey|SessionToken)>([^<]+)</")
_HANDS_OUT_CREDENTIALS = ("sts:AssumeRole", "iam:CreateAccessKey")
_REST_CALLS = [
    (re.compile(r"GET /foundation-models"), "bedrock:ListFoundationModels"),
    (re.compile(r"POST /model/[^/]+/converse"), "bedrock:Converse"),
    (re.compile(r"POST /model/[^/]+/invoke"), "bedrock:InvokeModel"),
]
# Each belongs to one connection, and the two here are not the same one.
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}
# ministack lets a session live as long as its role allows, however it was assumed.
_CHAINED_TOO_LONG = Answer(
    400,
    '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
    "<Code>ValidationError</Code><Message>The requested DurationSeconds exceeds the 1 hour session "
    "limit for roles assumed by role chaining</Message></Error>"
    "<RequestId>00000000-0000-0000-0000-000000000000</RequestId></ErrorResponse>",
    content_type="text/xml",
)


class Aws(Server):
    def __init__(self, ministack_port: int, tls: tuple[str, str] | None = None):
        super().__init__(tls)
        self.new_credentials_unknown_for = 0.0
        self.minted_secrets: set[str] = set()
        self._ministack_port = ministack_port
        self._handed_out: dict[str, float] = {}
        self._upstream = threading.local()

    def works(
        self, access_key: str, secret: str, session_token: str | None, region: str
    ) -> bool:
        """Whether Bedrock takes these credentials; not recorded, nor touched by faults."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        if self._is_unknown(access_key):
            return False
        url = f"http://127.0.0.1:{self._ministack_port}/foundation-models"
        signed = AWSRequest("GET", url)
        SigV4Auth(Credentials(access_key, secret, session_token), "bedrock", region).add_auth(signed)
        headers = {"host": f"127.0.0.1:{self._ministack_port}", **dict(signed.headers.items())}
        return self._forward(Request("GET", "/foundation-models", headers, b"")).status == 200

    def call_name(self, request: Request) -> str:
        line = f"{request.method} {request.path}"
        for pattern, name in _REST_CALLS:
            if pattern.fullmatch(line):
                return name
        _, service = _signer(request)
        if target := request.headers.get("x-amz-target"):
            return f"{service}:{target.rpartition('.')[2]}"
        form = request.query
        if "x-www-form-urlencoded" in request.headers.get("content-type", ""):
            form = form | parse_qs(request.body.decode(errors="replace"))
        if "Action" in form:
            return f"{service}:{form['Action'][0]}"
        return f"{service} {line}"

    def handle(self, request: Request) -> Answer:
        access_key, _ = _signer(request)
        is_bedrock = request.call.startswith("bedrock:")
        if is_bedrock and self._is_unknown(access_key):
            return Answer(
                403,
                json.dumps({"message": "The security token included in the request is invalid."}),
                {"x-amzn-ErrorType": "UnrecognizedClientException"},
            )
        if request.call == "sts:AssumeRole" and _is_chained_too_long(access_key, request):
            return _CHAINED_TOO_LONG
        answer = self._forward(request)
        if request.call in _HANDS_OUT_CREDENTIALS and answer.status == 200:
            for handed_out in _ACCESS_KEY_ID.findall(answer.body):
                self._handed_out.setdefault(handed_out.decode(), time.monotonic())
            self.minted_secrets.update(html.unescape(part.decode()) for part in _SECRET_PARTS.findall(answer.body))
        if is_bedrock and answer.status >= 400:
            return _with_error_type(answer)
        return answer

    def _is_unknown(self, access_key: str) -> bool:
        since = self._handed_out.get(access_key)
        return since is not None and time.monotonic() - since < self.new_credentials_unknown_for

    def _forward(self, request: Request) -> Answer:
        connection = getattr(self._upstream, "connection", None)
        if connection:
            try:
                return _exchange(connection, request)
            except (http.client.RemoteDisconnected, ConnectionError):
                connection.close()  # it was idle for too long; a fresh one gets one more try
        connection = http.client.HTTPConnection("127.0.0.1", self._ministack_port)
        self._upstream.connection = connection
        return _exchange(connection, request)


def _exchange(connection: http.client.HTTPConnection, request: Request) -> Answer:
    # The Host header goes on as the client sent it: the signature covers it.
    connection.putrequest(
        request.method, request.target, skip_host=True, skip_accept_encoding=True
    )
    for name, value in request.headers.items():
        if name not in _HOP_BY_HOP:
            connection.putheader(name, value)
    if request.body or request.method in ("POST", "PUT", "PATCH"):
        connection.putheader("content-length", str(len(request.body)))
    connection.endheaders(request.body or None)
    response = connection.getresponse()
    body = response.read()
    headers = {n.lower(): v for n, v in response.getheaders()}
    kept = {n: v for n, v in headers.items() if n not in _HOP_BY_HOP}
    if request.method == "HEAD" and "content-length" in headers:
        kept["content-length"] = headers["content-length"]
    return Answer(response.status, body, kept, headers.get("content-type", "application/json"))


def _signer(request: Request) -> tuple[str, str]:
    """The access key id and the service that the request was signed with, or two empty strings."""
    found = _CREDENTIAL.search(request.headers.get("authorization", ""))
    return (found[1], found[3]) if found else ("", "")


def _is_chained_too_long(access_key: str, request: Request) -> bool:
    form = parse_qs(request.body.decode(errors="replace"))
    duration = form.get("DurationSeconds", ["0"])[0]
    return access_key.startswith("ASIA") and duration.isdigit() and int(duration) > 3600


def _with_error_type(answer: Answer) -> Answer:
    """Real Bedrock names the error in a header, which is where SDKs look first."""
    if "x-amzn-errortype" in answer.headers:
        return answer
    try:
        body = json.loads(answer.body)
    except ValueError:
        return answer
    error_type = body.get("__type") or body.get("code")
    if not error_type:
        return answer
    headers = {**answer.headers, "x-amzn-errortype": error_type.rpartition("#")[2]}
    return Answer(answer.status, answer.body, headers, answer.content_type)
