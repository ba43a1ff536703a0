"""Runs the Rust tests, and then the black-box tests.

    run_tests.py all
    run_tests.py fast
    run_tests.py matching EXPRESSION
    run_tests.py independent
    run_tests.py fleet

With `fast`, the black-box tests are only those that are marked so. They test the debug build that the Rust tests have
just made, because a release build takes minutes. With `matching`, the tests are those that match an expression for
pytest's -k. With `independent`, the tests are those that run on moto instead of the project's own local AWS. With
`fleet`, only the test of the largest fleet runs, which takes minutes.
"""

import os
import re
import subprocess
import sys

import environment
from environment import ROOT
from step import exit_on_signals, run

RUST_TESTS = ["cargo", "test", "--locked"]
PYTEST = [sys.executable, "-m", "pytest", "tests"]
NO_TESTS = 5  # pytest's exit status if it has found none


def rust_tests(*arguments):
    """Returns how many tests were run."""
    output = run("cargo test", [*RUST_TESTS, *arguments], show="test result")
    return sum(int(number) for number in re.findall(r"^running (\d+) tests?$", "\n".join(output), re.MULTILINE))


def run_pytest(*arguments):
    """Becomes pytest, which then handles signals itself."""
    os.execv(sys.executable, [*PYTEST, *arguments])


def words(expression):
    """The parts of `a or b`, which Rust's test runner can search for; None for anything else."""
    parts = re.split(r"\s+or\s+", expression.strip())
    plain = all(re.fullmatch(r"\w+(::\w+)*", part) and part not in ("and", "or", "not") for part in parts)
    return parts if plain else None


def black_box_tests_match(expression):
    """Whether any do; exits if pytest can't read the expression."""
    command = [*PYTEST, "--collect-only", "--quiet", "--numprocesses", "0", "-k", expression]
    collected = subprocess.run(command, capture_output=True, text=True)
    if collected.returncode not in (0, NO_TESTS):
        sys.exit((collected.stderr or collected.stdout).strip())
    return collected.returncode == 0


def main():
    environment.prepare()
    exit_on_signals()
    match sys.argv[1:]:
        case ["all"]:
            rust_tests()
            run_pytest()
        case ["fast"]:
            rust_tests()
            os.environ["BOOTSTRAP"] = str(ROOT / "target/debug/bootstrap")
            run_pytest("-m", "fast")
        case ["matching", expression]:
            in_pytest, in_rust = black_box_tests_match(expression), 0
            if parts := words(expression):
                in_rust = rust_tests("--", *parts)
            else:
                print("No Rust tests are run: only words joined by `or` can select them.", flush=True)
            if in_pytest:
                run_pytest("-k", expression)
            elif not in_rust:
                sys.exit(f"No test matches {expression}.")
        case ["independent" | "fleet" as marker]:
            run_pytest("-m", marker)
        case _:
            sys.exit(__doc__)


main()
