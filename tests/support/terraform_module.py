"""terraform/, planned and applied by Terraform."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from .paths import ROOT, TERRAFORM

MODULE = ROOT / "terraform"
_SUPPORT = Path(__file__).parent
_RESULT = """
output "parameters" { value = local.parameters }
output "problems" { value = local.problems }
"""


def plan_parameters(folder: Path, variables: dict) -> dict:
    """What becomes of the variables, which needs no provider: the outputs `parameters` and `problems`, and errors."""
    for name in ("variables.tf", "parameters.tf"):
        shutil.copy(MODULE / name, folder / name)
    (folder / "result.tf").write_text(_RESULT)
    return _run("plan", folder, variables, {})


class Module:
    """A copy of the module in `folder`, with a provider that works on the local AWS."""

    def __init__(self, folder: Path, endpoint: str, credentials: dict[str, str]):
        self.folder = Path(shutil.copytree(MODULE, folder / "terraform"))
        self._environment = credentials | {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
            "TF_CLI_CONFIG_FILE": str(install_provider(folder)),
        }

    def run(self, action: str, **variables) -> dict:
        """The result of plan, apply or destroy: its `outputs`, `changes` and `errors`."""
        return _run(action, self.folder, variables, self._environment)


def block(file: str, kind: str) -> str:
    """The body of the file's one block of this kind. `terraform fmt` puts a block's end at the beginning of a line."""
    text = (MODULE / file).read_text()
    [body] = re.findall(rf"^{re.escape(kind)} .*?{{\n(.*?)^}}", text, flags=re.MULTILINE | re.DOTALL)
    return body


def install_provider(folder):
    """Installs the stand-in for AWS's provider; returns Terraform's configuration file, which finds it there."""
    mirror = folder / "providers"
    program = mirror / f"registry.terraform.io/hashicorp/aws/6.0.0/{_platform()}/terraform-provider-aws_v6.0.0"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec "{TERRAFORM}" "{_SUPPORT / "terraform_provider.py"}" "$@"\n')
    program.chmod(0o755)
    configuration = folder / "terraform.rc"
    configuration.write_text(f'provider_installation {{\n  filesystem_mirror {{\n    path = "{mirror}"\n  }}\n}}\n')
    return configuration


def _platform():
    return f"linux_{'arm64' if os.uname().machine == 'aarch64' else 'amd64'}"


def _run(action, folder, variables, environment):
    # Without the caller's AWS account, and without settings that look for providers elsewhere.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "TF_"))}
    command = [str(TERRAFORM), str(_SUPPORT / "terraform_main.py"), action, str(folder)]
    done = subprocess.run(
        command, input=json.dumps(variables), capture_output=True, text=True, env=kept | environment, timeout=120
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])
