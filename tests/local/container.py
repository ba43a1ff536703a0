"""Runs the function by `sam local invoke`: in a container of the Docker engine that answers."""

import ipaddress
import json
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from samcli.yamlhelper import yaml_dump, yaml_parse

from .function import ARCHITECTURE, Result

# What Docker calls the machine that it runs on.
HOST = "host.docker.internal"
IMAGE = "public.ecr.aws/lambda/provided:al2023"


def docker(*arguments) -> str | None:
    """What the Docker client prints; None where there is none, or no engine answers it."""
    try:
        return subprocess.run(
            ["docker", *arguments], capture_output=True, check=True, text=True, timeout=60
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def engine_answers() -> bool:
    return docker("version", "--format", "{{.Server.Version}}") is not None


class Container:
    """A function whose servers listen on this machine's loopback, at `ports`, where a container cannot see them."""

    def __init__(self, template, environment: dict[str, str], ports: list[int]):
        self._template = Path(template).resolve()
        self._variables = {name: value.replace("127.0.0.1", HOST) for name, value in environment.items()}
        bridge = _bridge()
        self._relays = [Relay(bridge, port) for port in ports] if bridge else []

    def __enter__(self):
        for relay in self._relays:
            threading.Thread(target=relay.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        for relay in self._relays:
            relay.shutdown()
            relay.server_close()

    def invoke(self, event) -> Result:
        credentials = {name: value for name, value in self._variables.items() if name.startswith("AWS_")}
        with tempfile.TemporaryDirectory(prefix="sam-local-") as directory:
            began = time.perf_counter()
            sam = subprocess.run(
                [*self._command(Path(directory)), "--event", "-"],
                input=json.dumps(event),
                capture_output=True,
                text=True,
                env={**os.environ, "SAM_CLI_TELEMETRY": "0", **credentials},
            )
            seconds = time.perf_counter() - began
        try:
            body, is_json = json.loads(sam.stdout), True
        except ValueError:
            body, is_json = sam.stdout + sam.stderr, False
        failed = isinstance(body, dict) and ("errorMessage" in body or "errorType" in body)
        return Result(is_json and not failed, body, sam.returncode, sam.stdout.encode(), seconds)

    def _command(self, directory: Path) -> list[str]:
        """sam gives a function only those variables that its template names; their values are in env.json."""
        template = yaml_parse(self._template.read_text())
        function = template["Resources"]["RotatorFunction"]["Properties"]
        function["Architectures"] = [ARCHITECTURE]
        function["CodeUri"] = str(self._template.parent / "RotatorFunction")
        variables = function["Environment"]["Variables"]
        for name in self._variables:
            variables.setdefault(name, "")
        names = [name for name in variables if name in self._variables]
        (directory / "template.yaml").write_text(yaml_dump(template))
        env = {"RotatorFunction": {name: self._variables[name] for name in names}}
        (directory / "env.json").write_text(json.dumps(env))
        has_image = docker("image", "inspect", f"{IMAGE}-{ARCHITECTURE}") is not None
        return [
            shutil.which("sam", path=Path(sys.executable).parent) or "sam",
            "local", "invoke", "RotatorFunction",
            "--template", str(directory / "template.yaml"),
            "--env-vars", str(directory / "env.json"),
            "--add-host", f"{HOST}:host-gateway",
            *(["--skip-pull-image"] if has_image else []),
        ]  # fmt: skip


class Relay(socketserver.ThreadingTCPServer):
    """Hands on what comes to a port of the engine's bridge to the same port of the loopback."""

    daemon_threads = True

    def __init__(self, address: str, port: int):
        super().__init__((address, port), _Relayed)


class _Relayed(socketserver.BaseRequestHandler):
    def handle(self):
        port = self.server.server_address[1]
        with socket.create_connection(("127.0.0.1", port)) as upstream:
            back = threading.Thread(target=_copy, args=(upstream, self.request), daemon=True)
            back.start()
            _copy(self.request, upstream)
            back.join()


def _copy(source: socket.socket, sink: socket.socket):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # one side went away


def _bridge() -> str | None:
    """This machine's address on the engine's bridge, which is what HOST becomes in a container.

    None on Docker Desktop: its bridge is in a virtual machine, and HOST is this machine's loopback already.
    """
    subnet = docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Subnet}}")
    if not subnet:
        return None
    address = str(ipaddress.ip_network(subnet)[1])
    with socket.socket() as listener:
        try:
            listener.bind((address, 0))
        except OSError:
            return None
    return address
