"""Runs a Lambda `bootstrap` under Lambda's own runtime interface emulator, without a container."""

import atexit
import base64
import http.client
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from .invocation_result import InvocationResult
from .lambda_environment import lambda_environment
from .ports import free_port
from .processes import children, kill_tree

# Lambda's name for this machine's architecture.
ARCHITECTURE = "arm64" if platform.machine() in ("aarch64", "arm64") else "x86_64"
_INVOKE = "/2015-03-31/functions/function/invocations"


class EmulatedFunction:
    def __init__(self, bootstrap, environment: dict[str, str], timeout: int = 300):
        self._bootstrap = Path(bootstrap).resolve()
        self._environment = lambda_environment(self._bootstrap, timeout, environment)
        self._timeout = timeout
        self._reports_due = 0
        self._process: subprocess.Popen | None = None
        self._directory: tempfile.TemporaryDirectory | None = None
        self._port = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def invoke(self, event: dict | bytes, client_context: str | None = None) -> InvocationResult:
        if self._process is None:
            self._start()
        sent = event if isinstance(event, bytes) else json.dumps(event).encode()
        encoded = base64.b64encode((client_context or "").encode("latin-1")).decode()
        headers = {} if client_context is None else {"X-Amz-Client-Context": encoded}
        # The emulator ends a function at its timeout. This timeout guards against an emulator that hangs.
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=self._timeout + 30)
        began = time.perf_counter()
        try:
            connection.request("POST", _INVOKE, sent, headers)
            response = connection.getresponse()
            raw = response.read()
        finally:
            connection.close()
        seconds = time.perf_counter() - began
        self._reports_due += response.status == 200  # a crash writes no REPORT line
        return InvocationResult.read(raw, response.status, seconds)

    def logs(self) -> list[str]:
        if self._directory is None:
            return []
        # The emulator writes the REPORT line after it has answered.
        deadline = time.monotonic() + 0.5
        while True:
            text = self._log.read_text(errors="replace")
            if text.count("REPORT RequestId:") >= self._reports_due or time.monotonic() > deadline:
                return text.splitlines()
            time.sleep(0.005)

    @property
    def init_ms(self) -> float | None:
        """The duration of the first start, from the emulator's INIT REPORT line."""
        found = re.search(r"INIT REPORT\(durationMs: ([\d.]+)", "\n".join(self.logs()))
        return float(found[1]) if found else None

    @property
    def pid(self) -> int | None:
        """The bootstrap's running process; None before the first invocation and after a crash."""
        running = children(self._process.pid) if self._process else []
        return running[-1] if running else None

    def stop(self):
        atexit.unregister(self.stop)
        if self._process:
            kill_tree(self._process)
            self._process = None
        if self._directory:
            self._directory.cleanup()
            self._directory = None

    @property
    def _log(self) -> Path:
        return Path(self._directory.name, "function.log")

    def _start(self):
        self._directory = tempfile.TemporaryDirectory(prefix="function-")
        emulator = _emulator(Path(self._directory.name))
        self._port, runtime_api_port = free_port(), free_port()
        command = [
            str(emulator),
            "--runtime-interface-emulator-address", f"127.0.0.1:{self._port}",
            "--runtime-api-address", f"127.0.0.1:{runtime_api_port}",
            str(self._bootstrap),
        ]  # fmt: skip
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                command,
                env=self._environment,
                cwd=self._directory.name,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        atexit.register(self.stop)
        self._wait_until_listening(self._port)
        # The emulator may start to serve the Runtime API later, and a function that can't reach it exits.
        self._wait_until_listening(runtime_api_port)

    def _wait_until_listening(self, port: int, timeout: float = 20):
        deadline = time.monotonic() + timeout
        while True:
            probe = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
            try:
                probe.connect()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the emulator did not start:\n{self._log.read_text()}") from None
                time.sleep(0.002)
            finally:
                probe.close()


def _emulator(directory: Path) -> Path:
    """The emulator that aws-sam-cli ships for this machine; a copy of it if it isn't executable."""
    sam = importlib.util.find_spec("samcli")
    if sam is None:
        raise RuntimeError("aws-sam-cli is not installed in this Python environment")
    shipped = Path(sam.submodule_search_locations[0], "local", "rapid", f"aws-lambda-rie-{ARCHITECTURE}")
    if os.access(shipped, os.X_OK):
        return shipped
    copied = Path(shutil.copy(shipped, directory))
    copied.chmod(0o755)
    return copied
