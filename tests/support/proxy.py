"""A local HTTP proxy that answers CONNECT requests with tunnels, records the requests, and can refuse them."""

import base64
import socket
import threading


class ConnectProxy:
    """`routes` maps host names, which resolve nowhere, to local ports. `user` is the required `name:password`."""

    def __init__(self, routes: dict[str, int], user: str | None = None, refuses_with: str | None = None):
        self.connects: list[str] = []
        self._routes = routes
        self._user = user
        self._refuses_with = refuses_with
        self._listener = socket.create_server(("127.0.0.1", 0))
        user = f"{user}@" if user else ""
        self.url = f"http://{user}127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()

    @property
    def hosts(self) -> set[str]:
        """The hosts to which tunnels were requested."""
        return {connect.rpartition(":")[0] for connect in self.connects}

    def start(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def stop(self):
        for it in [self._listener, *self._open]:
            try:
                it.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            it.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket):
        self._open.add(client)
        try:
            head = b""
            while b"\r\n\r\n" not in head:
                received = client.recv(4096)
                if not received:
                    return
                head += received
            self._answer(client, head.decode("latin-1"))
        except OSError:
            pass
        finally:
            self._open.discard(client)
            client.close()

    def _answer(self, client: socket.socket, head: str):
        line, *headers = head.split("\r\n")
        method, target, _ = line.split(" ")
        assert method == "CONNECT", line
        self.connects.append(target)
        given = {name.lower(): value.strip() for name, _, value in (header.partition(":") for header in headers)}
        if self._refuses_with:
            client.sendall(f"HTTP/1.1 {self._refuses_with}\r\n\r\n".encode())
        elif self._user and given.get("proxy-authorization") != _basic(self._user):
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n")
        else:
            self._tunnel(client, self._routes[target.rpartition(":")[0]])

    def _tunnel(self, client: socket.socket, port: int):
        with socket.create_connection(("127.0.0.1", port)) as server:
            self._open.add(server)
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_copy, args=(server, client), daemon=True)
            back.start()
            _copy(client, server)
            back.join()
            self._open.discard(server)


def _basic(user: str) -> str:
    return "Basic " + base64.b64encode(user.encode()).decode()


def _copy(source: socket.socket, sink: socket.socket):
    try:
        while received := source.recv(65536):
            sink.sendall(received)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass
