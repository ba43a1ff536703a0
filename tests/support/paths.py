"""Where the function, the local AWS and the project's files are."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TEMPLATE = ROOT / ".aws-sam/build/template.yaml"
BOOTSTRAP = Path(os.environ.get("BOOTSTRAP", ROOT / ".aws-sam/build/RotatorFunction/bootstrap"))
# moto's own Python environment.
MOTO = Path(os.environ.get("MOTO", ROOT / ".tools/moto/bin/python"))
MINISTACK = Path(os.environ.get("MINISTACK", ROOT / ".tools/ministack/bin/ministack"))
CHECKOV = Path(os.environ.get("CHECKOV", ROOT / ".tools/checkov/bin/python"))
# The Python environment that has Terraform as a library.
TERRAFORM = Path(os.environ.get("TERRAFORM", ROOT / ".tools/terraform/bin/python"))
