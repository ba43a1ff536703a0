"""Puts local servers at a distance: over TLS, a round-trip time away, with a record of each round trip and its times.

Each direction takes half of the round-trip time, whatever the number of bytes. The kernel completes a TCP handshake
before a program sees the connection. So the first bytes that a client sends count as sent one round trip after the
connection was accepted, which is when a client at that distance could have sent them.
"""

import asyncio
import selectors
import ssl
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

_READ = 65536


@dataclass
class Crossing:
    """One round trip: when the client sent something, and when the end of the answer reached it, if it did."""

    what: str
    sent: float
    answered: float | None = None


class Distance:
    """A context in which servers are `round_trip` seconds away. The time can change between two connections."""

    def __init__(self, certificate: tuple[str, str]):
        self.round_trip = 0.0
        self.crossings: list[Crossing] = []
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(*certificate)
        # A handshake then takes one round trip, so the record doesn't have to distinguish its messages.
        self.tls.minimum_version = ssl.TLSVersion.TLSv1_3
        # select() waits for microseconds, and epoll for whole milliseconds.
        self.loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def place(self, name: str, address: str, port: int) -> str:
        """Puts the server at this local port at a distance, and returns the URL for clients.

        Each server needs an address of its own, because clients keep the TLS sessions of each address.
        """
        listening = self.loop.create_server(lambda: _Connection(self, name, port), address, 0)
        server = asyncio.run_coroutine_threadsafe(listening, self.loop).result()
        return f"https://{address}:{server.sockets[0].getsockname()[1]}"


class _Way:
    """Delivers what is sent in one direction, in order, half a round trip later."""

    def __init__(self, distance: Distance, deliver: Callable[[bytes, float], None]):
        self._loop, self._seconds, self._deliver = distance.loop, distance.round_trip / 2, deliver
        self._under_way: deque[tuple[bytes, float]] = deque()

    def send(self, data: bytes, at: float) -> float:
        """Returns when the data arrives. Empty data ends the connection."""
        self._under_way.append((data, at))
        self._loop.call_at(at + self._seconds, lambda: self._deliver(*self._under_way.popleft()))
        return at + self._seconds


class _Connection(asyncio.Protocol):
    """The server's end of a connection. TLS ends here, and `_Server` continues in clear text."""

    def __init__(self, distance: Distance, name: str, port: int):
        self._distance, self._name, self._port = distance, name, port
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = distance.tls.wrap_bio(self._received, self._to_send, server_side=True)
        self._is_secure = False
        self._to_server = _Way(distance, self._arrived)
        self._to_client = _Way(distance, self._returned)

    def connection_made(self, transport):
        loop, accepted = self._distance.loop, self._distance.loop.time()
        self._client = transport
        self._connected = accepted + self._distance.round_trip
        self._record(Crossing(f"TCP to {self._name}", accepted, self._connected))
        self._crossing = self._record(Crossing(f"TLS to {self._name}", self._connected))
        server = loop.create_connection(lambda: _Server(self.answer), "127.0.0.1", self._port)
        self._server = loop.create_task(server)

    def data_received(self, data):
        self._to_server.send(data, max(self._distance.loop.time(), self._connected))

    def connection_lost(self, _):
        self._to_server.send(b"", max(self._distance.loop.time(), self._connected))

    def answer(self, data: bytes):
        """Sends the server's answer to the client, or closes the connection if the data is empty."""
        if data:
            self._tls.write(data)
            self._flush(is_answer=True)
        else:
            self._to_client.send(b"", self._distance.loop.time())

    def _record(self, crossing: Crossing) -> Crossing:
        self._distance.crossings.append(crossing)
        return crossing

    def _arrived(self, data: bytes, sent: float):
        self._received.write(data)
        try:
            request = self._read() if self._is_secure or self._shake_hands() else b""
        except ssl.SSLError:
            # The client doesn't trust the certificate.
            request, data = b"", b""
        self._flush(is_answer=not self._is_secure)
        if request and self._crossing.answered:
            self._crossing = self._record(Crossing(f"call to {self._name}", sent))
        if request or not data:
            self._server.add_done_callback(lambda server: _pass_on(server, request))

    def _shake_hands(self) -> bool:
        try:
            self._tls.do_handshake()
            self._is_secure = True
        except ssl.SSLWantReadError:
            pass
        return self._is_secure

    def _read(self) -> bytes:
        read = bytearray()
        try:
            while some := self._tls.read(_READ):
                read += some
        except ssl.SSLWantReadError:
            pass
        return bytes(read)

    def _flush(self, is_answer: bool):
        """Sends what TLS has to send. The session tickets after a handshake are no answer to a request."""
        if data := self._to_send.read():
            arrival = self._to_client.send(data, self._distance.loop.time())
            if is_answer:
                self._crossing.answered = arrival

    def _returned(self, data: bytes, _sent: float):
        if data:
            self._client.write(data)
        else:
            self._client.close()


class _Server(asyncio.Protocol):
    """The connection to the local server. `answer` receives what the server sends, and empty data at the end."""

    def __init__(self, answer: Callable[[bytes], None]):
        self._answer = answer

    def data_received(self, data):
        self._answer(data)

    def connection_lost(self, _):
        self._answer(b"")


def _pass_on(server: asyncio.Task, request: bytes):
    if server.cancelled() or server.exception():
        return
    transport, _ = server.result()
    if request:
        transport.write(request)
    else:
        transport.close()
