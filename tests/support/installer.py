"""Runs deploy.py against the local AWS: at a terminal, or without one."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from .local_cloud import REGION
from .paths import ROOT
from .typed_terminal import run_at_terminal
from .world import World

AWS_CLI = Path(os.environ.get("AWS_CLI", ROOT / ".tools/awscli/bin/aws"))


@dataclass
class Installer:
    """deploy.py in a folder with a release bundle, and a folder that it is started in."""

    world: World
    bundle: Path
    folder: Path
    caller: dict[str, str] | None = None
    variables: dict[str, str] = field(default_factory=dict)

    def type(self, *arguments: str, answers: list[tuple], timeout: float = 120) -> tuple[str, int]:
        return run_at_terminal(self._command(arguments), self._environment(), self.folder, answers, timeout)

    def run(self, *arguments: str, piped: str = "") -> tuple[str, int]:
        """Without a terminal."""
        options = {**self._options(), "stdin": None, "input": piped}
        done = subprocess.run(self._command(arguments), **options, timeout=300)
        return done.stdout, done.returncode

    def config(self, stack: str) -> Path:
        """Where deploy.py keeps the answers."""
        return self.folder / f"deploy/{stack}.yaml"

    def deploy(self, stack: str, targets: list | None = None, **lines: str) -> tuple[str, int]:
        """Without questions, with these lines in the file, and with this list of targets in S3."""
        listed = self.list_of(targets) if targets is not None else ()
        return self.run("--config", self._write_config(stack, lines), *listed)

    def list_of(self, targets: list) -> tuple[str, str]:
        """The option for a file with these targets."""
        (self.folder / "fleet.json").write_text(json.dumps(targets))
        return "--targets", "fleet.json"

    def start(self, stack: str, **lines: str) -> subprocess.Popen:
        """Like `deploy`, but doesn't wait for the end."""
        return subprocess.Popen(self._command(["--config", self._write_config(stack, lines)]), **self._options())

    def buckets(self) -> list[str]:
        """The names of the buckets that deploy.py has created. Other tests create others in the same local AWS."""
        found = self.world.client("s3").list_buckets()["Buckets"]
        return [bucket["Name"] for bucket in found if bucket["Name"].startswith("bedrock-braintrust-rotator-")]

    def _write_config(self, stack: str, lines: dict[str, str]) -> str:
        self.config(stack).parent.mkdir(exist_ok=True)
        self.config(stack).write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
        return f"deploy/{stack}.yaml"

    def _options(self) -> dict:
        return {
            "env": self._environment(),
            "cwd": self.folder,
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "text": True,
        }

    def _command(self, arguments) -> list[str]:
        return [sys.executable, str(self.bundle / "deploy.py"), *arguments]

    def _environment(self) -> dict[str, str]:
        """Without the caller's AWS, proxy and Braintrust."""
        own = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_REGION": REGION}
        return {
            "PATH": f"{AWS_CLI.parent}{os.pathsep}{os.defpath}",
            "HOME": str(self.folder),
            "AWS_ENDPOINT_URL": self.world.aws.url,
            **own,
            **(self.caller or self.world.cloud.ministack.root),
            **self.variables,
        }
