"""Lets the server in front of ministack forward requests, ask whether one is allowed, and act as root."""

import json
import re
import socket
import threading
from urllib.parse import parse_qs, urlencode
from xml.etree import ElementTree

from .aws_replies import AwsRefusal
from .http_messages import RecordedRequest, Reply

# These headers belong to one connection. The connections to the client and to ministack are different.
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}
# ministack_main.py's own headers. A client that could send them would decide what its policy is asked.
_ONLY_AUTHORIZE = "x-local-only-authorize"
_CONDITION_KEYS = "x-local-condition-keys"
_WITHOUT_BODY = ("204", "304")
_RESERVED = (_ONLY_AUTHORIZE, _CONDITION_KEYS)
# ministack accepts root's key without a signature. The ID of another account is the key of that account's root.
_ROOT_KEY_ID = "test"
_CREDENTIAL = re.compile(r"Credential=([^/,\s]+)/\d+/([^/]+)/([^/]+)/aws4_request")


def signer(request: RecordedRequest) -> tuple[str, str, str]:
    """The access key ID, region and service of the request's signature, or three empty strings."""
    found = _CREDENTIAL.search(request.headers.get("authorization", ""))
    return (found[1], found[2], found[3]) if found else ("", "", "")


def is_from_root(request: RecordedRequest) -> bool:
    return signer(request)[0] == _ROOT_KEY_ID


def form(request: RecordedRequest) -> dict[str, str]:
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

    def forward(self, request: RecordedRequest, condition_keys: dict[str, str] | None = None) -> Reply:
        return self._send(request, {_CONDITION_KEYS: json.dumps(condition_keys)} if condition_keys else {})

    def refusal(self, request: RecordedRequest, condition_keys: dict[str, str] | None = None) -> Reply | None:
        """The reply of ministack's IAM if it refuses the request, otherwise None. The request isn't executed."""
        ours = {_ONLY_AUTHORIZE: "1", _CONDITION_KEYS: json.dumps(condition_keys or {})}
        answer = self._send(request, ours)
        return answer if answer.status >= 400 else None

    def signed(self, credentials, method: str, target: str, region: str, body: bytes = b"") -> RecordedRequest:
        """A request to Bedrock, signed with botocore's `credentials`."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        signed = AWSRequest(method, f"http://{self.host}{target}", data=body)
        SigV4Auth(credentials, "bedrock", region).add_auth(signed)
        headers = {name.lower(): value for name, value in signed.headers.items()}
        return RecordedRequest(method, target, {"host": self.host, **headers}, body)

    def as_root(
        self, service: str, region: str, method="POST", target="/", body=b"", keys=None, account=_ROOT_KEY_ID, **headers
    ) -> Reply:
        scope = f"Credential={account}/20260101/{region}/{service}/aws4_request"
        authorization = f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0"
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        request = RecordedRequest(method, target, {"host": self.host, "authorization": authorization, **headers}, body)
        answer = self.forward(request, keys)
        if answer.status >= 400:
            raise AwsRefusal(answer)
        return answer

    def root_query(self, service: str, keys=None, account=_ROOT_KEY_ID, **parameters: str) -> ElementTree.Element:
        """A call in the query protocol as root of this or another account; the answer's XML without namespaces."""
        body = urlencode(parameters).encode()
        content_type = "application/x-www-form-urlencoded"
        answer = self.as_root(service, "us-east-1", body=body, keys=keys, account=account, content_type=content_type)
        return ElementTree.fromstring(re.sub(rb' xmlns="[^"]*"', b"", answer.body))

    def root_json(self, service: str, action: str, region: str, **parameters) -> dict:
        """A call in the JSON protocol as root."""
        body = json.dumps(parameters).encode()
        content_type = "application/x-amz-json-1.1"
        target = f"{service}.{action}"
        answer = self.as_root(service, region, body=body, x_amz_target=target, content_type=content_type)
        return json.loads(answer.body)

    def _send(self, request: RecordedRequest, ours: dict[str, str]) -> Reply:
        connection = getattr(self._local, "connection", None)
        if connection:
            try:
                return connection.exchange(request, ours)
            except ConnectionError:
                connection.close()  # it was idle for too long; a fresh connection gets one more try
        self._local.connection = _Connection(self._port)
        return self._local.connection.exchange(request, ours)


class _Connection:
    """A connection to ministack, which answers with a content-length and keeps the connection open."""

    def __init__(self, port: int):
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self._socket.makefile("rb")

    def close(self):
        self._reader.close()
        self._socket.close()

    def exchange(self, request: RecordedRequest, ours: dict[str, str]) -> Reply:
        # The Host header is forwarded as the client sent it, because the signature covers it.
        headers = {n: v for n, v in request.headers.items() if n not in _HOP_BY_HOP and n not in _RESERVED}
        headers |= {**ours, "content-length": str(len(request.body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._socket.sendall(
            f"{request.method} {request.target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + request.body
        )
        status = self._line()
        if not status:
            raise ConnectionError("ministack has closed the connection")
        headers = {}
        while line := self._line():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        is_empty = request.method == "HEAD" or status.split(" ")[1] in _WITHOUT_BODY
        body = b"" if is_empty else self._reader.read(int(headers["content-length"]))
        kept = {name: value for name, value in headers.items() if name not in _HOP_BY_HOP}
        if request.method == "HEAD" and "content-length" in headers:
            kept["content-length"] = headers["content-length"]
        return Reply(int(status.split(" ")[1]), body, kept, headers.get("content-type", "application/json"))

    def _line(self) -> str:
        return self._reader.readline(65536).decode("latin-1").rstrip("\r\n")
