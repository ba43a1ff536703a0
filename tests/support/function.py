"""Runs a Lambda `bootstrap` under Lambda's own runtime interface emulator, without a container."""

import atexit
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .ports import free_port
from .processes import children, kill_tree

# As Lambda calls this machine's architecture.
ARCHITECTURE = "arm64" if platform.machine() in ("aarch64", "arm64") else "x86_64"
_INVOKE = "/2015-03-31/functions/function/invocations"


@dataclass(frozen=True)
class Result:
    ok: bool
    body: Any
    status: int
    raw: bytes
    seconds: float


class Function:
    def __init__(self, bootstrap, environment: dict[str, str], timeout: int = 300):
        self._bootstrap = str(Path(bootstrap).resolve())
        self._environment = environment
        self._timeout = timeout
        self._reports_due = 0
        self._process: subprocess.Popen | None = None
        self._directory: tempfile.TemporaryDirectory | None = None
        self._port = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def invoke(self, event: dict | bytes) -> Result:
        if self._process is None:
            self._start()
        sent = event if isinstance(event, bytes) else json.dumps(event).encode()
        # The emulator ends a function at its timeout; this only guards against a stuck emulator.
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=self._timeout + 30)
        began = time.perf_counter()
        try:
            connection.request("POST", _INVOKE, sent)
            response = connection.getresponse()
            raw = response.read()
        finally:
            connection.close()
        seconds = time.perf_counter() - began
        self._reports_due += response.status == 200  # a crash has no REPORT line
        try:
            body, is_json = json.loads(raw), True
        except ValueError:
            body, is_json = raw.decode(errors="replace"), False
        failed = isinstance(body, dict) and ("errorMessage" in body or "errorType" in body)
        # What is not JSON is the emulator's own text about a time-out.
        ok = response.status == 200 and is_json and not failed
        return Result(ok, body, response.status, raw, seconds)

    def logs(self) -> list[str]:
        if self._directory is None:
            return []
        # The emulator writes REPORT after it has answered.
        deadline = time.monotonic() + 0.5
        while True:
            text = self._log.read_text(errors="replace")
            if text.count("REPORT RequestId:") >= self._reports_due or time.monotonic() > deadline:
                return text.splitlines()
            time.sleep(0.005)

    @property
    def init_ms(self) -> float | None:
        """How long the first start took, from the emulator's INIT REPORT."""
        found = re.search(r"INIT REPORT\(durationMs: ([\d.]+)", "\n".join(self.logs()))
        return float(found[1]) if found else None

    @property
    def pid(self) -> int | None:
        """The running bootstrap; None before the first invocation and after a crash."""
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
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_LAMBDA_FUNCTION_NAME": "function",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(self._timeout),
            "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/function",
            "AWS_LAMBDA_LOG_STREAM_NAME": "$LATEST",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "LAMBDA_TASK_ROOT": str(Path(self._bootstrap).parent),
            "_HANDLER": "bootstrap",
            "TZ": ":UTC",
            **self._environment,
        }
        command = [
            str(emulator),
            "--runtime-interface-emulator-address", f"127.0.0.1:{self._port}",
            "--runtime-api-address", f"127.0.0.1:{runtime_api_port}",
            self._bootstrap,
        ]  # fmt: skip
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                command,
                env=environment,
                cwd=self._directory.name,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        atexit.register(self.stop)
        self._wait_until_listening(self._port)
        # It may listen here later than there, and a function that finds nobody at its first call gives up.
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
                    raise RuntimeError(
                        f"the emulator did not start:\n{self._log.read_text()}"
                    ) from None
                time.sleep(0.002)
            finally:
                probe.close()


def _emulator(directory: Path) -> Path:
    """The emulator that aws-sam-cli ships for this machine, copied when it is not executable."""
    sam = importlib.util.find_spec("samcli")
    if sam is None:
        raise RuntimeError("aws-sam-cli is not installed in this Python environment")
    shipped = Path(sam.submodule_search_locations[0], "local", "rapid", f"aws-lambda-rie-{ARCHITECTURE}")
    if os.access(shipped, os.X_OK):
        return shipped
    copied = Path(shutil.copy(shipped, directory))
    copied.chmod(0o755)
    return copied
