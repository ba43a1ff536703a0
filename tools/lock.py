"""Resolves each tools/*.in again into the versions and hashes of its tools/*.lock."""

import os

import install_python
from environment import ROOT
from step import exit_on_signals, run

# The oldest Python that the project supports, so that the result doesn't depend on the one that runs this.
OPTIONS = ("--upgrade", "--generate-hashes", "--python-version", "3.11")


def main():
    exit_on_signals()
    install_python.install_uv()
    variables = os.environ | install_python.settings() | {"UV_CUSTOM_COMPILE_COMMAND": "make lock"}
    variables.pop("UV_INDEX", None)  # packages of this machine alone must not get into the lock files
    for source in sorted(ROOT.glob("tools/*.in")):
        # A relative name, because uv writes it into the lock file.
        names = ["--output-file", f"tools/{source.stem}.lock", f"tools/{source.name}"]
        run(f"resolve {source.name}", [install_python.UV, "pip", "compile", *OPTIONS, *names], variables=variables)


main()
