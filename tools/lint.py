"""Checks format, lints, documentation, licenses and templates.

The steps that use cargo's build folder run one after another, and the others beside them. The checks of the templates
are skipped if neither the templates nor the checks have changed since they passed.
"""

import os
import sys

import environment
from environment import ROOT
from passed import Check
from step import Step, exit_on_signals, run_side_by_side
from terminal import GREEN, Progress

EXAMPLES = sorted((ROOT / "docs/examples").glob("*.yaml"))
TEMPLATES = ["template.yaml", "bedrock-role.yaml", *(f"docs/examples/{p.name}" for p in EXAMPLES)]
# `sam validate --lint` is cfn-lint without the other templates.
CFN_LINT = ["cfn-lint", *TEMPLATES]
CHECKOV = [ROOT / ".tools/checkov/bin/checkov", "--framework", "cloudformation", "--compact", "--skip-download"]
CHECKOV += ["--file", *TEMPLATES]


def cargo_steps():
    clippy = ["cargo", "clippy", "--all-targets", "--locked", "--", "-D", "warnings"]
    # --examples makes cargo resolve the development dependencies too, so that it can reuse what clippy has compiled.
    doc = ["cargo", "doc", "--lib", "--examples", "--no-deps", "--document-private-items", "--locked"]
    yield Step("cargo fmt", ["cargo", "fmt", "--check"])
    yield Step("cargo clippy", clippy)
    yield Step("cargo doc", doc, variables=os.environ | {"RUSTDOCFLAGS": "-Dwarnings"})


def main():
    environment.prepare()
    exit_on_signals()
    checks = {
        Step("cfn-lint", CFN_LINT): Check("cfn-lint", CFN_LINT, [*TEMPLATES, "tools/sam.lock"]),
        Step("checkov", CHECKOV, show="Passed checks"): Check("checkov", CHECKOV, [*TEMPLATES, "tools/checkov.lock"]),
    }
    beside = [Step("cargo deny", ["cargo", "deny", "--locked", "check", "licenses", "bans", "sources"])]
    for step, check in checks.items():
        if check.has_passed():
            Progress(step.name).end("unchanged since it passed", GREEN)
        else:
            beside.append(step)
    failed = run_side_by_side(cargo_steps(), beside)
    for step in set(beside) & set(checks) - set(failed):
        checks[step].remember()
    if failed:
        sys.exit(f"Failed: {', '.join(step.name for step in failed)}")


main()
