"""Reaches ministack from the server before it: forwards requests, asks whether one is allowed, and acts as root."""

import http.client
import json
import re
import threading
from urllib.parse import parse_qs, urlencode
from xml.etree import ElementTree

from .answers import Refused
from .server import Answer, Request

# Each belongs to one connection, and the two here are not the same one.
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}
# ministack_main.py's own; a client that could send them would decide what its policy is asked.
_ONLY_AUTHORIZE = "x-local-only-authorize"
_CONDITION_KEYS = "x-local-condition-keys"
_CREDENTIAL = re.compile(r"Credential=([^/,\s]+)/\d+/([^/]+)/([^/]+)/aws4_request")


def signer(request: Request) -> tuple[str, str, str]:
    """The access key id, region and service that the request was signed with, or three empty strings."""
    found = _CREDENTIAL.search(request.headers.get("authorization", ""))
    return (found[1], found[2], found[3]) if found else ("", "", "")


def form(request: Request) -> dict[str, str]:
    """The parameters of a call in the query protocol."""
    found = request.query
    if "x-www-form-urlencoded" in request.headers.get("content-type", ""):
        found = found | parse_qs(request.body.decode(errors="replace"), keep_blank_values=True)
    return {name: values[0] for name, values in found.items()}


class Upstream:
    def __init__(self, port: int):
        self._port = port
        self._local = threading.local()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._port}"

    def forward(self, request: Request, condition_keys: dict[str, str] | None = None) -> Answer:
        return self._send(request, {_CONDITION_KEYS: json.dumps(condition_keys)} if condition_keys else {})

    def refusal(self, request: Request, condition_keys: dict[str, str] | None = None) -> Answer | None:
        """Why ministack's IAM refuses the request as its caller signed it; None if it is allowed. Nothing is done."""
        ours = {_ONLY_AUTHORIZE: "1", _CONDITION_KEYS: json.dumps(condition_keys or {})}
        answer = self._send(request, ours)
        return answer if answer.status >= 400 else None

    def signed(self, credentials, method: str, target: str, region: str, body: bytes = b"") -> Request:
        """A request to Bedrock, signed with botocore's `credentials`."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        signed = AWSRequest(method, f"http://{self.host}{target}", data=body)
        SigV4Auth(credentials, "bedrock", region).add_auth(signed)
        headers = {name.lower(): value for name, value in signed.headers.items()}
        return Request(method, target, {"host": self.host, **headers}, body)

    def as_root(self, service: str, region: str, method="POST", target="/", body=b"", keys=None, **headers) -> Answer:
        # ministack takes root's key without a signature.
        scope = f"Credential=test/20260101/{region}/{service}/aws4_request"
        authorization = f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0"
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        request = Request(method, target, {"host": self.host, "authorization": authorization, **headers}, body)
        answer = self.forward(request, keys)
        if answer.status >= 400:
            raise Refused(answer)
        return answer

    def root_query(self, service: str, keys=None, **parameters: str) -> ElementTree.Element:
        """A call in the query protocol as root; the answer's XML without namespaces."""
        body = urlencode(parameters).encode()
        content_type = "application/x-www-form-urlencoded"
        answer = self.as_root(service, "us-east-1", body=body, keys=keys, content_type=content_type)
        return ElementTree.fromstring(re.sub(rb' xmlns="[^"]*"', b"", answer.body))

    def root_json(self, service: str, action: str, region: str, **parameters) -> dict:
        """A call in the JSON protocol as root."""
        body = json.dumps(parameters).encode()
        content_type = "application/x-amz-json-1.1"
        target = f"{service}.{action}"
        answer = self.as_root(service, region, body=body, x_amz_target=target, content_type=content_type)
        return json.loads(answer.body)

    def _send(self, request: Request, ours: dict[str, str]) -> Answer:
        connection = getattr(self._local, "connection", None)
        if connection:
            try:
                return _exchange(connection, request, ours)
            except (http.client.RemoteDisconnected, ConnectionError):
                connection.close()  # it was idle for too long; a fresh one gets one more try
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        self._local.connection = connection
        return _exchange(connection, request, ours)


def _exchange(connection: http.client.HTTPConnection, request: Request, ours: dict[str, str]) -> Answer:
    # The Host header goes on as the client sent it: the signature covers it.
    connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
    for name, value in request.headers.items():
        if name not in _HOP_BY_HOP and name not in (_ONLY_AUTHORIZE, _CONDITION_KEYS):
            connection.putheader(name, value)
    for name, value in ours.items():
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
