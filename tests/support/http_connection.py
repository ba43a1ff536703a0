"""The server's side of one HTTP/1.1 connection: reads requests and writes replies, faster than `http.server`."""

import socket
from http.client import responses

from .http_messages import RecordedRequest, Reply

_LONGEST_LINE = 65536
_WITHOUT_BODY = (204, 304)


class HttpConnection:
    def __init__(self, connected: socket.socket):
        self.socket = connected
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.keeps_alive = True
        self._reader = connected.makefile("rb")

    def read(self) -> RecordedRequest | None:
        """The next request, or None if the client has closed the connection."""
        line = self._line()
        if not line:
            return None
        method, target, _ = line.split(" ", 2)
        headers = {}
        while line := self._line():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("expect", "").lower() == "100-continue":
            self.socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.keeps_alive = headers.get("connection", "").lower() != "close"
        return RecordedRequest(method, target, headers, self._body(headers))

    def write(self, request: RecordedRequest, reply: Reply, truncated: bool = False):
        body = reply.body(request) if callable(reply.body) else reply.body
        body = body.encode() if isinstance(body, str) else body
        headers = {
            "content-type": reply.content_type,
            "content-length": str(len(body)),
            **{name.lower(): value for name, value in reply.headers.items()},
        }
        if truncated:
            body = body[: len(body) // 2]
        if request.method == "HEAD" or reply.status in _WITHOUT_BODY:
            body = b""
        # The status is recorded first, so that a test that has received the reply finds it.
        request.status = reply.status
        self.socket.sendall(_head(reply.status, headers) + body)

    def write_endlessly(self, request: RecordedRequest, content_type: str):
        """Sends a body until the client closes the connection, which raises OSError."""
        request.status = 200
        self.socket.sendall(_head(200, {"content-type": content_type, "connection": "close"}))
        while True:
            self.socket.sendall(b" " * 65536)

    def close(self):
        self._reader.close()
        self.socket.close()

    def _line(self) -> str:
        return self._reader.readline(_LONGEST_LINE).decode("latin-1").rstrip("\r\n")

    def _body(self, headers: dict[str, str]) -> bytes:
        if "chunked" not in headers.get("transfer-encoding", "").lower():
            return self._reader.read(int(headers.get("content-length") or 0))
        body = b""
        while size := int(self._line().partition(";")[0], 16):
            body += self._reader.read(size)
            self._line()
        while self._line():
            pass  # trailers
        return body


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} {responses.get(status, '')}\r\n{lines}\r\n".encode("latin-1")
