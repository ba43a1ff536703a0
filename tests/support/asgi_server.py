"""Serves ministack over HTTP/1.1 with less work for each request than hypercorn.

It supports only what its two clients need: the server in front of ministack, and the health check. Both send a
content-length and wait for each answer. It runs in ministack's own Python environment.
"""

import asyncio
from urllib.parse import unquote

_BACKLOG = 1024


async def serve(app, config):
    """Replaces hypercorn's function of the same name and parameters."""
    lifespan = await _start_up(app)
    host, _, port = config.bind[0].rpartition(":")
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(app), host, int(port), backlog=_BACKLOG)
    await asyncio.gather(server.serve_forever(), lifespan)


async def _start_up(app) -> asyncio.Task:
    messages, is_started = asyncio.Queue(), asyncio.Event()
    messages.put_nowait({"type": "lifespan.startup"})

    async def send(_message):
        is_started.set()

    lifespan = asyncio.create_task(app({"type": "lifespan"}, messages.get, send))
    await is_started.wait()
    return lifespan


class _Connection(asyncio.Protocol):
    def __init__(self, app):
        self._app = app
        self._received = bytearray()
        self._scope = None
        self._body_length = 0

    def connection_made(self, transport):
        self._transport = transport

    def data_received(self, data):
        self._received += data
        if self._scope is None:
            head, separator, rest = self._received.partition(b"\r\n\r\n")
            if not separator:
                return
            self._received = rest
            self._read_head(bytes(head))
        if len(self._received) >= self._body_length:
            scope, body = self._scope, bytes(self._received)
            self._scope, self._received = None, bytearray()
            self._task = asyncio.create_task(self._answer(scope, body))

    def _read_head(self, head: bytes):
        request, *lines = head.split(b"\r\n")
        method, target, _ = request.split(b" ")
        path, _, query = target.partition(b"?")
        pairs = [line.split(b":", 1) for line in lines]
        headers = [(name.lower(), value.strip()) for name, value in pairs]
        self._body_length = int(dict(headers).get(b"content-length", 0))
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": method.decode(),
            "path": unquote(path.decode("latin-1")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": headers,
            "client": self._transport.get_extra_info("peername"),
            "server": self._transport.get_extra_info("sockname"),
        }

    async def _answer(self, scope: dict, body: bytes):
        start = {}

        async def receive():
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message):
            if message["type"] == "http.response.start":
                start.update(message)
                return
            assert not message.get("more_body"), "ministack streams an answer"
            lines = [b"%s: %s\r\n" % (name, value) for name, value in start["headers"]]
            self._transport.write(b"HTTP/1.1 %d \r\n%s\r\n%s" % (start["status"], b"".join(lines), message["body"]))

        try:
            await self._app(scope, receive, send)
        except Exception:
            self._transport.close()
            raise
