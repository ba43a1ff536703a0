"""A local HTTP/1.1 server that records every request and can misbehave on request."""

import socket
import ssl
import struct
import threading
import time
import traceback
from dataclasses import replace

from .faults import Delay, DropAfter, DropBefore, Endless, Fault, Hold, Kill, PlannedFault, Relabel, Reset, Truncate
from .http_connection import HttpConnection
from .http_messages import RecordedRequest, Reply

_BACKLOG = 1024
# Closing a connection that does not linger sends a reset.
_NO_LINGER = struct.pack("ii", 1, 0)


class RecordingServer:
    """Subclasses name each request and answer it."""

    def __init__(self, tls: tuple[str, str] | None = None):
        self.requests: list[RecordedRequest] = []
        # The client's address of each connection, with or without requests.
        self.peers: list[tuple[str, int]] = []
        # For each TLS connection, whether it resumed the session of an earlier one.
        self.resumed: list[bool] = []
        self.latency = 0.0
        self._plans: list[PlannedFault] = []
        self._plans_lock = threading.Lock()
        self._tls = None
        if tls:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*tls)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self._port = self._listener.getsockname()[1]
        self._connections: set[socket.socket] = set()
        self._thread: threading.Thread | None = None

    def call_name(self, request: RecordedRequest) -> str:
        raise NotImplementedError

    def handle(self, request: RecordedRequest) -> Reply:
        raise NotImplementedError

    def inspect(self, request: RecordedRequest, reply: Reply | None):
        """Gets each request when it arrives, and again with its reply if the request was carried out."""

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def start(self):
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def stop(self):
        if self._thread:
            thread, self._thread = self._thread, None
            # The thread waits for a connection, so this wakes it.
            socket.create_connection(("127.0.0.1", self.port)).close()
            thread.join()
        self._listener.close()
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def fail(self, call, fault: Fault, times: int | None = 1, skip: int = 0):
        """Plans a fault for the requests of a call, or for those for which the given function returns True."""
        matches = call if callable(call) else lambda request: request.call == call
        with self._plans_lock:
            self._plans.append(PlannedFault(matches, fault, times, skip))

    def clear_faults(self):
        with self._plans_lock:
            self._plans.clear()

    def _accept(self):
        while True:
            connected, _ = self._listener.accept()
            if self._thread is None:
                connected.close()
                return
            # The TLS handshake is in the connection's thread too, so that a client that stalls in it blocks no other.
            threading.Thread(target=self._serve, args=(connected,), daemon=True).start()

    def _serve(self, connected: socket.socket):
        connection = None
        try:
            if self._tls:
                connected = self._tls.wrap_socket(connected, server_side=True)
                self.resumed.append(connected.session_reused)
            self._connections.add(connected)
            self.peers.append(connected.getpeername())
            connection = HttpConnection(connected)
            while connection.keeps_alive and (request := connection.read()):
                self._answer(connection, request)
        except (OSError, ValueError):
            pass  # Clients that disappear in the middle of a request are part of what is tested.
        finally:
            self._connections.discard(connected)
            (connection or connected).close()

    def _answer(self, connection: HttpConnection, request: RecordedRequest):
        request.call = self.call_name(request)
        self.requests.append(request)
        self.inspect(request, None)
        if self.latency:
            time.sleep(self.latency)
        match fault := self._fault_for(request):
            case Delay():
                time.sleep(fault.seconds)
                connection.write(request, self._act(request))
            case DropBefore():
                connection.keeps_alive = False
            case DropAfter():
                self._act(request)
                connection.keeps_alive = False
            case Kill():
                if fault.acts:
                    self._act(request)
                fault.kill()
                connection.keeps_alive = False
            case Hold():
                fault.wait()
                connection.write(request, self._act(request))
            case Reset():
                if fault.acts:
                    self._act(request)
                connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                connection.keeps_alive = False
            case Endless():
                connection.write_endlessly(request, fault.content_type)
            case Truncate():
                connection.write(request, self._act(request), truncated=True)
                connection.keeps_alive = False
            case Relabel():
                reply = self._act(request)
                headers = {**reply.headers, "content-type": fault.content_type}
                connection.write(request, replace(reply, headers=headers))
            case Reply():
                connection.write(request, fault)
            case None:
                connection.write(request, self._act(request))

    def _fault_for(self, request: RecordedRequest) -> Fault | None:
        with self._plans_lock:
            return next((plan.fault for plan in self._plans if plan.applies_to(request)), None)

    def _act(self, request: RecordedRequest) -> Reply:
        try:
            reply = self.handle(request)
            self.inspect(request, reply)
            return reply
        except OSError:
            # The server behind this one is being stopped.
            return Reply(503, "the local server is stopping", content_type="text/plain")
        except Exception:
            traceback.print_exc()
            return Reply(500, "the local server failed", content_type="text/plain")
