"""Compiles one of cargo's tools, which only some goals need, into .tools/cargo.

    install_cargo.py NAME
"""

import sys

from environment import ROOT
from step import exit_on_signals, run

VERSIONS = {"cargo-fuzz": "0.13.2", "cargo-mutants": "27.1.0"}


def main():
    [name] = sys.argv[1:]
    exit_on_signals()
    options = ["--locked", "--root", ROOT / ".tools/cargo"]
    run(f"install {name}", ["cargo", "install", *options, f"{name}@{VERSIONS[name]}"])


main()
