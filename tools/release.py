"""Writes the release bundle into dist/, for ARCH and for the other architecture if its Rust target is installed.

    release.py ARCH

`make build` has built the function for ARCH. The other one is built here.
"""

import subprocess
import sys
from pathlib import Path

import build
import bundle
import cloudformation
import environment
from environment import ROOT
from step import exit_on_signals, run
from terminal import GREEN, YELLOW, Progress

DIST = ROOT / "dist"
BUILT = ROOT / ".aws-sam/build/RotatorFunction/bootstrap"
# Not the folder of `make build`, whose function stays the one for ARCH.
CROSS_BUILT = ROOT / "target/lambda-cross"


def can_build(arch):
    """Whether Rust's standard library for this architecture is installed."""
    command = ["rustc", "--print", "target-libdir", "--target", build.rust_target(arch)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode == 0 and Path(done.stdout.strip()).is_dir()


def cross_build(arch):
    command = [*build.CARGO_LAMBDA, "--bin", "bootstrap", "--lambda-dir", CROSS_BUILT]
    run(f"build the function for {arch}", command, variables=build.variables(arch))
    return CROSS_BUILT / "bootstrap/bootstrap"


def main():
    [arch] = sys.argv[1:]
    environment.prepare()
    exit_on_signals()
    [other] = set(bundle.MACHINES) - {arch}
    bootstraps = {arch: BUILT}
    if can_build(other):
        bootstraps[other] = cross_build(other)
    else:
        command = f"rustup target add {build.rust_target(other)}"
        Progress(other).end(f"left out, because its Rust target is not installed. To add it: {command}", YELLOW)
    progress = Progress(f"write version {cloudformation.version()} into dist/")
    bundle.write_bundle(DIST, dict(sorted(bootstraps.items())))
    progress.end("ok", GREEN)
    for file in sorted(DIST.iterdir()):
        print(f"{file.stat().st_size:12,}  {file.relative_to(ROOT)}")


main()
