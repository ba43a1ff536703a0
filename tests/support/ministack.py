"""Runs ministack, the local AWS, with IAM and signatures enforced."""

import atexit
import http.client
import os
import subprocess
import tempfile
import time
from pathlib import Path

from .ports import free_port
from .processes import children, kill_tree

_MAIN = Path(__file__).with_name("ministack_main.py")


class Ministack:
    root = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }

    def __init__(self, executable: str, port: int | None = None):
        self.port = port or free_port()
        self._executable = Path(executable)
        self._process: subprocess.Popen | None = None
        self._directory: tempfile.TemporaryDirectory | None = None

    @property
    def log(self) -> Path:
        return Path(self._directory.name, "ministack.log")

    def start(self, endpoint_url: str | None = None, timeout: float = 60):
        """`endpoint_url` is the address of AWS for the functions that ministack runs."""
        self._directory = tempfile.TemporaryDirectory(prefix="ministack-")
        home = self._directory.name
        environment = {
            # The functions inherit these variables, so none of the caller's are included.
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": home,
            "TMPDIR": home,
            "STATE_DIR": home,
            "S3_DATA_DIR": f"{home}/s3",
            "AUTH": "true",
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self.port),
            "AWS_ENDPOINT_URL": endpoint_url or f"http://127.0.0.1:{self.port}",
            "LOG_LEVEL": "WARNING",
            # State machines wait for hundredths of a second instead of seconds.
            "SFN_WAIT_SCALE": "0.01",
            # Otherwise it would listen on fixed ports, and delete Docker containers.
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "DOCKER_HOST": f"unix://{home}/no-docker.sock",
        }
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                [str(self._executable.with_name("python")), "-P", str(_MAIN)],
                env=environment,
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        atexit.register(self.stop)
        try:
            self._wait_until_healthy(timeout)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self):
        atexit.unregister(self.stop)
        if self._process:
            kill_tree(self._process)
            self._process = None
        if self._directory:
            self._directory.cleanup()
            self._directory = None

    def functions(self) -> list[int]:
        """The IDs of the processes of its functions."""
        return [pid for pid in children(self._process.pid) if _program(pid) == "bootstrap"]

    def _wait_until_healthy(self, timeout: float):
        deadline = time.monotonic() + timeout
        while not self._healthy():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"ministack did not start:\n{self.log.read_text()}")
            time.sleep(0.02)

    def _healthy(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/_ministack/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode().rpartition("/")[2]
    except OSError:
        return ""
