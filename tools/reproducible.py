"""Builds the current commit twice, in two folders, and compares the results.

    reproducible.py ARCH
"""

import hashlib
import shutil
import sys

import build
import environment
from environment import ROOT
from step import exit_on_signals, run


def build_copy(number, arch):
    """Builds a clone of this repository; returns the hash of the function."""
    folder = ROOT / "target" / f"reproducible-{number}"
    shutil.rmtree(folder, ignore_errors=True)
    run(f"clone number {number}", ["git", "clone", "--quiet", ROOT, folder])
    variables = build.variables(arch) | {"CARGO_TARGET_DIR": str(folder / "target")}
    command = ["env", "--chdir", folder, *build.CARGO_LAMBDA, "--bin", "bootstrap"]
    run(f"build number {number}", command, variables=variables)
    bootstrap = folder / "target/lambda/bootstrap/bootstrap"
    digest = hashlib.sha256(bootstrap.read_bytes()).hexdigest()
    print(f"{digest}  {bootstrap.relative_to(ROOT)}")
    return digest


def main():
    [arch] = sys.argv[1:]
    environment.prepare()
    exit_on_signals()
    first, second = (build_copy(number, arch) for number in (1, 2))
    if first != second:
        sys.exit("The two builds differ.")
    print("The two builds are identical.")


main()
