"""Runs a Lambda `bootstrap` as a process of its own, and serves Lambda's Runtime API to it.

It starts in milliseconds. `emulated_function.py` runs a bootstrap under Lambda's own emulator instead.
"""

import atexit
import json
import selectors
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

from .http_connection import HttpConnection
from .http_messages import RecordedRequest, Reply
from .invocation_result import InvocationResult
from .lambda_environment import lambda_environment

_API = "/2018-06-01/runtime"
_ARN = "arn:aws:lambda:us-east-1:000000000000:function:function"
_ACCEPTED = Reply(202)
# Without a connection, only its exit shows that the process has ended.
_SECONDS_BETWEEN_LOOKS = 0.05


class FunctionExited(Exception):
    pass


class LambdaFunction:
    """Starts the process at the first invocation, and again after a crash or a timeout."""

    def __init__(self, bootstrap, environment: dict[str, str], timeout: int = 300):
        self._bootstrap = Path(bootstrap).resolve()
        self._environment = lambda_environment(self._bootstrap, timeout, environment)
        self._timeout = timeout
        self._process: subprocess.Popen | None = None
        self._directory: tempfile.TemporaryDirectory | None = None
        self._runtime_api: RuntimeApi | None = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def invoke(self, event: dict | bytes, client_context: str | None = None) -> InvocationResult:
        """`client_context` is what the caller encoded in X-Amz-Client-Context."""
        sent = event if isinstance(event, bytes) else json.dumps(event).encode()
        began = time.perf_counter()
        try:
            raw, status = self._invoke(sent, client_context), 200
        except FunctionExited:
            raw, status = b"The function exited without an answer", 502
            self._end_process()
        except TimeoutError:
            raw, status = f"Task timed out after {self._timeout} seconds".encode(), 200
            self._end_process()
        return InvocationResult.read(raw, status, time.perf_counter() - began)

    def logs(self) -> list[str]:
        return self._log.read_text(errors="replace").splitlines() if self._directory else []

    @property
    def pid(self) -> int | None:
        """The running process; None before the first invocation and after a crash."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def stop(self):
        atexit.unregister(self.stop)
        self._end_process()
        if self._directory:
            self._directory.cleanup()
            self._directory = None

    @property
    def _log(self) -> Path:
        return Path(self._directory.name, "function.log")

    def _invoke(self, event: bytes, client_context: str | None) -> bytes:
        if self.pid is None:
            self._end_process()
            self._start()
        deadline = time.monotonic() + self._timeout
        connection, request = self._runtime_api.next_request(deadline)
        if request.path == f"{_API}/init/error":
            connection.write(request, _ACCEPTED)
            self._process.wait(timeout=self._timeout)
            return request.body
        id = str(uuid.uuid4())
        headers = {
            "lambda-runtime-aws-request-id": id,
            "lambda-runtime-deadline-ms": str(round((time.time() + deadline - time.monotonic()) * 1000)),
            "lambda-runtime-invoked-function-arn": _ARN,
            "lambda-runtime-invocation-id": str(uuid.uuid4()),
            "lambda-runtime-trace-id": "Root=1-00000000-000000000000000000000000",
        }
        if client_context is not None:
            headers["lambda-runtime-client-context"] = client_context
        connection.write(request, Reply(200, event, headers))
        connection, request = self._runtime_api.next_request(deadline)
        assert request.headers.get("lambda-runtime-invocation-id") == headers["lambda-runtime-invocation-id"]
        assert request.path in [f"{_API}/invocation/{id}/{end}" for end in ("response", "error")], request.path
        connection.write(request, _ACCEPTED)
        return request.body

    def _start(self):
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="function-")
            atexit.register(self.stop)
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [str(self._bootstrap)],
                env={**self._environment, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}"},
                cwd=self._directory.name,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._runtime_api = RuntimeApi(listener, self._process)

    def _end_process(self):
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._runtime_api:
            self._runtime_api.close()
            self._runtime_api = None


class RuntimeApi:
    """The requests of one function process, which makes one at a time."""

    def __init__(self, listener: socket.socket, process: subprocess.Popen):
        self._process = process
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)

    def next_request(self, deadline: float) -> tuple[HttpConnection, RecordedRequest]:
        """Raises FunctionExited when the process ends first, and TimeoutError at the deadline."""
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            ready = self._selector.select(left if self._is_connected() else min(left, _SECONDS_BETWEEN_LOOKS))
            if not ready and self._process.poll() is not None:
                raise FunctionExited
            for key, _ in ready:
                if key.data is None:
                    self._accept(key.fileobj)
                elif request := self._read(key.data, left):
                    return key.data, request

    def close(self):
        for key in list(self._selector.get_map().values()):
            (key.data or key.fileobj).close()
        self._selector.close()

    def _is_connected(self) -> bool:
        return len(self._selector.get_map()) > 1

    def _accept(self, listener: socket.socket):
        connected, _ = listener.accept()
        self._selector.register(connected, selectors.EVENT_READ, HttpConnection(connected))

    def _read(self, connection: HttpConnection, timeout: float) -> RecordedRequest | None:
        connection.socket.settimeout(timeout)
        try:
            request = connection.read()
        except ConnectionError:
            request = None
        if request is None:
            self._selector.unregister(connection.socket)
            connection.close()
        return request
