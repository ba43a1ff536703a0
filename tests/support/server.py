"""A fast local HTTP/1.1 server that records every request and can be told to misbehave."""

import json
import socket
import socketserver
import ssl
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


@dataclass(eq=False)
class Request:
    """One request as it arrived; `status` stays None when it was never answered."""

    method: str
    target: str  # the path and query exactly as sent
    headers: dict[str, str]
    body: bytes
    path: str = ""
    query: dict[str, list[str]] = field(default_factory=dict)
    call: str = ""
    status: int | None = None
    at: float = field(default_factory=time.monotonic)

    def __post_init__(self):
        parts = urlsplit(self.target)
        self.path = parts.path
        self.query = parse_qs(parts.query, keep_blank_values=True)

    def json(self):
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What goes back to the client; as a fault, it is given instead of acting, and its body may depend on the request."""

    status: int
    body: bytes | str | Callable[[Request], bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


@dataclass(frozen=True)
class Delay:
    """Waits, then acts normally."""

    seconds: float


@dataclass(frozen=True)
class DropBefore:
    """Closes the connection without acting."""


@dataclass(frozen=True)
class DropAfter:
    """Acts, then closes the connection without answering."""


@dataclass(frozen=True)
class Truncate:
    """Acts, promises the whole answer, sends half of it and closes the connection."""


@dataclass(frozen=True)
class Endless:
    """Answers 200 and then sends bytes until the client goes away."""

    content_type: str = "application/json"


@dataclass(frozen=True)
class Kill:
    """Kills the client with `kill()`, before acting or after, and closes the connection."""

    kill: Callable[[], None]
    acts: bool


@dataclass(frozen=True)
class Reset:
    """Resets the connection, before acting or after."""

    acts: bool


@dataclass(frozen=True)
class Relabel:
    """Acts and answers, under another content type."""

    content_type: str


Fault = Answer | Delay | DropBefore | DropAfter | Truncate | Endless | Kill | Reset | Relabel


@dataclass
class _Plan:
    matches: Callable[[Request], bool]
    fault: Fault
    times: int | None
    skip: int


class Server:
    """Subclasses say what a request is called and how it is answered."""

    def __init__(self, tls: tuple[str, str] | None = None):
        self.requests: list[Request] = []
        self.latency = 0.0
        self._plans: list[_Plan] = []
        self._plans_lock = threading.Lock()
        self._scheme = "https" if tls else "http"
        self._listener = _Listener(self, tls)
        self._thread: threading.Thread | None = None

    def call_name(self, request: Request) -> str:
        raise NotImplementedError

    def handle(self, request: Request) -> Answer:
        raise NotImplementedError

    @property
    def port(self) -> int:
        return self._listener.server_address[1]

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def start(self):
        self._thread = threading.Thread(
            target=self._listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()
        return self

    def stop(self):
        if self._thread:
            self._listener.shutdown()
            self._thread.join()
            self._thread = None
        self._listener.server_close()
        self._listener.close_connections()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def fail(self, call, fault: Fault, times: int | None = 1, skip: int = 0):
        """Gives the next `times` matching requests the fault, after `skip` of them; None is for ever."""
        matches = call if callable(call) else lambda request: request.call == call
        with self._plans_lock:
            self._plans.append(_Plan(matches, fault, times, skip))

    def clear_faults(self):
        with self._plans_lock:
            self._plans.clear()

    def _fault_for(self, request: Request) -> Fault | None:
        with self._plans_lock:
            for plan in self._plans:
                if plan.times == 0 or not plan.matches(request):
                    continue
                if plan.skip:
                    plan.skip -= 1
                    continue
                if plan.times is not None:
                    plan.times -= 1
                return plan.fault
        return None

    def _act(self, request: Request) -> Answer:
        try:
            return self.handle(request)
        except OSError:
            # What stands behind is being stopped.
            return Answer(503, "the local server is stopping", content_type="text/plain")
        except Exception:
            traceback.print_exc()
            return Answer(500, "the local server failed", content_type="text/plain")


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, owner: Server, tls: tuple[str, str] | None):
        self.owner = owner
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Connection)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            # The handshake happens in the connection's own thread, so that a
            # client that stalls in it does not block accepting the others.
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    def server_bind(self):
        # HTTPServer's own version looks up the host's full name, which can
        # take seconds on a machine without DNS.
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request, client_address):
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self):
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def handle_error(self, request, client_address):
        # Clients that go away in the middle are part of what is tested.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *_):
        pass

    def handle_expect_100(self):
        go_on = super().handle_expect_100()
        self.wfile.flush()
        return go_on

    def _serve(self):
        owner = self.server.owner
        request = Request(
            self.command,
            self.path,
            {name.lower(): value for name, value in self.headers.items()},
            self._read_body(),
        )
        request.call = owner.call_name(request)
        owner.requests.append(request)
        if owner.latency:
            time.sleep(owner.latency)
        fault = owner._fault_for(request)
        if isinstance(fault, Delay):
            time.sleep(fault.seconds)
        elif isinstance(fault, DropBefore):
            self.close_connection = True
            return
        elif isinstance(fault, Kill):
            if fault.acts:
                owner._act(request)
            fault.kill()
            self.close_connection = True
            return
        elif isinstance(fault, Reset):
            if fault.acts:
                owner._act(request)
            # Closing without lingering is what sends the RST.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        elif isinstance(fault, Endless):
            self._stream_for_ever(request, fault)
            return
        answer = fault if isinstance(fault, Answer) else owner._act(request)
        if isinstance(fault, DropAfter):
            self.close_connection = True
            return
        if isinstance(fault, Relabel):
            answer = replace(answer, headers={**answer.headers, "content-type": fault.content_type})
        self._write(request, answer, truncate=isinstance(fault, Truncate))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return body

    def _write(self, request: Request, answer: Answer, truncate: bool):
        body = answer.body(request) if callable(answer.body) else answer.body
        body = body.encode() if isinstance(body, str) else body
        headers = {
            "content-type": answer.content_type,
            "content-length": str(len(body)),
            **{name.lower(): value for name, value in answer.headers.items()},
        }
        # Filled in before the client can see the answer, so that a test that
        # has the answer also sees the status.
        request.status = answer.status
        if truncate:
            body = body[: len(body) // 2]
            self.close_connection = True
        if request.method == "HEAD" or answer.status in (204, 304):
            body = b""
        self.wfile.write(self._head(answer.status, headers) + body)
        self.wfile.flush()

    def _stream_for_ever(self, request: Request, fault: Endless):
        request.status = 200
        self.close_connection = True
        self.wfile.write(self._head(200, {"content-type": fault.content_type, "connection": "close"}))
        while True:
            self.wfile.write(b" " * 65536)

    def _head(self, status: int, headers: dict[str, str]) -> bytes:
        reason = self.responses.get(status, ("",))[0]
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {status} {reason}\r\n{lines}\r\n".encode("latin-1")
