"""Changes the code of decisions and rotations in many small ways, and checks that a test notices each change.

Decisions are checked with the Rust tests, and rotations with the black-box tests that cover them best.
"""

import os
import sys

import environment
from environment import ROOT
from step import exit_on_signals, run

OUTPUT = ROOT / "target/mutants"
MINISTACK = ROOT / ".tools/ministack/bin/ministack"
DECISIONS = [
    "src/event.rs",
    "src/rotation/*.rs",
    "src/braintrust/layout.rs",
    "src/braintrust/rate_limit.rs",
    "src/inventory/findings.rs",
    "src/config.rs",
    "src/config/*.rs",
]
ROTATIONS = {
    "src/commands/rotate.rs": ["rotation", "destinations", "refusals", "refused_events", "probe", "deadlines"],
    "src/commands/rotation_step.rs": ["steps", "abandoned_rotations"],
    "src/commands/rollback.rs": ["rollback"],
    "src/commands/rotate_api_key.rs": ["api_key_rotation", "api_key_crashes"],
    "src/commands/check.rs": ["check", "inventory"],
    "src/commands/inventory.rs": ["inventory"],
    "src/inventory/reading.rs": ["inventory"],
    "src/inventory/room.rs": ["inventory"],
    "src/inventory/writers.rs": ["inventory"],
    "src/commands/status.rs": ["status"],
}


def missing():
    """The files in these lists that don't exist: cargo-mutants would find nothing to change there, and succeed."""
    files = [*DECISIONS, *ROTATIONS, *(f"tests/test_{name}.py" for names in ROTATIONS.values() for name in names)]
    return [name for name in dict.fromkeys(files) if not list(ROOT.glob(name))]


def change(name, arguments, tests, variables=None):
    command = ["cargo", "mutants", *arguments, "--", *tests]
    run(f"change {name}", command, show="mutants tested", variables=variables)


def main():
    environment.prepare()
    exit_on_signals()
    if missing():
        sys.exit(f"tools/mutants.py names files that do not exist: {', '.join(missing())}")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    files = [argument for name in DECISIONS for argument in ("--file", name)]
    change("the decisions", ["--output", OUTPUT / "decisions", *files], ["--lib"])
    for name, tests in ROTATIONS.items():
        black_box = " ".join(f"tests/test_{test}.py" for test in tests)
        variables = os.environ | {"MINISTACK": str(MINISTACK), "BLACK_BOX": black_box}
        output = OUTPUT / name.removeprefix("src/").replace("/", "-").removesuffix(".rs")
        change(name, ["--output", output, "--file", name], ["--test", "black_box", "--", "--ignored"], variables)


main()
