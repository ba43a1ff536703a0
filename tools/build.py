"""Builds the function for ARCH (x86_64 or arm64) with cargo-lambda and sam.

    build.py ARCH
"""

import os
import re
import sys
from pathlib import Path

import environment
from environment import ROOT
from step import exit_on_signals, run

BUILT = ROOT / ".aws-sam/build/template.yaml"
CARGO_LAMBDA = ["cargo", "lambda", "build", "--release", "--locked"]


def rust_target(arch):
    return {"x86_64": "x86_64", "arm64": "aarch64"}[arch] + "-unknown-linux-gnu"


def variables(arch):
    """The environment of a build that depends on the sources alone."""
    cargo_home = os.environ.get("CARGO_HOME") or Path.home() / ".cargo"
    return os.environ | {
        # cargo-lambda runs `rustup target list` and `add` if there is a program of that name. Cargo itself says what to
        # do if the target is missing.
        "RUSTUP": "none",
        "CARGO_BUILD_TARGET": rust_target(arch),
        # Panic messages contain these paths, which would reveal the builder's and differ between machines.
        "RUSTFLAGS": f"--remap-path-prefix={cargo_home}=/cargo -C link-arg=-Wl,-T,tools/no-unwind-tables.ld",
    }


def main():
    [arch] = sys.argv[1:]
    environment.prepare()
    exit_on_signals()
    # `sam build` shows cargo's output only at its end. So cargo-lambda runs first, with the arguments that sam gives
    # it, and sam finds the work done.
    run("build the function", [*CARGO_LAMBDA, "--bin", "bootstrap"], variables=variables(arch))
    run("sam build", ["sam", "build"], variables=variables(arch))
    template = re.sub(r"^( *- )x86_64$", rf"\g<1>{arch}", BUILT.read_text(), flags=re.MULTILINE)
    BUILT.write_text(template)


if __name__ == "__main__":
    main()
