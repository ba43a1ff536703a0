"""Runs the function with `sam local invoke`, in a container of the Docker engine that is running."""

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
import uuid
from pathlib import Path

from samcli.yamlhelper import yaml_dump, yaml_parse

from .emulated_function import ARCHITECTURE
from .invocation_result import InvocationResult

# Docker's name for the machine that it runs on.
HOST = "host.docker.internal"
IMAGE = "public.ecr.aws/lambda/provided:al2023"


def docker(*arguments) -> str | None:
    """The output of the Docker client; None if there is no client or no engine."""
    try:
        return subprocess.run(
            ["docker", *arguments], capture_output=True, check=True, text=True, timeout=60
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def engine_answers() -> bool:
    return docker("version", "--format", "{{.Server.Version}}") is not None


class Container:
    """A function whose servers listen on this machine's loopback, at `ports`, which a container can't reach.

    Relays make them available on a network of its own, so that no other container can reach them.
    """

    def __init__(self, template, environment: dict[str, str], ports: list[int]):
        self._template = Path(template).resolve()
        self._variables = {name: value.replace("127.0.0.1", HOST) for name, value in environment.items()}
        self._ports = ports
        self._network = f"rotator-{uuid.uuid4().hex[:12]}"
        self._relays: list[Relay] = []

    def __enter__(self):
        if docker("network", "create", self._network) is None:
            raise RuntimeError("the Docker engine makes no network")
        subnet = docker("network", "inspect", self._network, "--format", "{{(index .IPAM.Config 0).Subnet}}")
        network = ipaddress.ip_network(subnet)
        try:
            self._relays = [Relay(network, port) for port in self._ports]
            self._host = str(network[1])
        except OSError:
            # Docker Desktop's networks are in a virtual machine, where HOST is this machine's loopback.
            self._host = "host-gateway"
        for relay in self._relays:
            threading.Thread(target=relay.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        for relay in self._relays:
            relay.shutdown()
            relay.server_close()
        docker("network", "rm", self._network)

    def invoke(self, event) -> InvocationResult:
        # sam reads these variables too. It makes no call for which it would need the CA.
        own = {name: value for name, value in self._variables.items() if name.startswith("AWS_")}
        own.pop("AWS_CA_BUNDLE", None)
        with tempfile.TemporaryDirectory(prefix="sam-local-") as directory:
            began = time.perf_counter()
            sam = subprocess.run(
                [*self._command(Path(directory)), "--event", "-"],
                input=json.dumps(event),
                capture_output=True,
                text=True,
                env={**os.environ, "SAM_CLI_TELEMETRY": "0", **own},
            )
            seconds = time.perf_counter() - began
        return InvocationResult.read((sam.stdout or sam.stderr).encode(), 200, seconds)

    def _command(self, directory: Path) -> list[str]:
        """sam gives a function only the variables that its template names, with the values of env.json."""
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
            "--docker-network", self._network,
            "--add-host", f"{HOST}:{self._host}",
            *(["--skip-pull-image"] if has_image else []),
        ]  # fmt: skip


class Relay(socketserver.ThreadingTCPServer):
    """Relays connections from a network's containers to this machine's loopback."""

    daemon_threads = True

    def __init__(self, network, port: int):
        self._network = network
        super().__init__((str(network[1]), port), _Relayed)

    def verify_request(self, request, client_address):
        return ipaddress.ip_address(client_address[0]) in self._network


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
