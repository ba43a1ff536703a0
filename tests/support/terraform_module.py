"""What Terraform makes of the variables of terraform/."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .paths import LINT, ROOT

MODULE = ROOT / "terraform"
_NEED_NO_PROVIDER = ["variables.tf", "parameters.tf"]
_RESULT = """
output "parameters" { value = local.parameters }
output "problems" { value = local.problems }
"""


@dataclass
class Planned:
    parameters: dict[str, str]
    problems: list[str]
    errors: list[str]


def plan(folder: Path, variables: dict) -> Planned:
    """The stack's parameters, what is wrong with them, and the errors of the variables' own validations."""
    for name in _NEED_NO_PROVIDER:
        shutil.copy(MODULE / name, folder / name)
    (folder / "result.tf").write_text(_RESULT)
    command = [str(LINT), str(Path(__file__).with_name("terraform_main.py")), str(folder)]
    done = subprocess.run(command, input=json.dumps(variables), capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    answer = json.loads(done.stdout.splitlines()[-1])
    outputs = answer.get("outputs", {})
    return Planned(outputs.get("parameters", {}), outputs.get("problems") or [], answer.get("errors", []))


def blocks(file: str, kind: str) -> dict[str, str]:
    """The bodies of the file's blocks of this kind, by name. `terraform fmt` puts a block's end at the line's start."""
    text = (MODULE / file).read_text()
    return dict(re.findall(rf'^{kind} "(\w+)" {{\n(.*?)^}}', text, flags=re.MULTILINE | re.DOTALL))
