"""Resolves each tools/*.in again into the versions and hashes of its tools/*.lock."""

import os
import sys

from environment import ROOT
from step import exit_on_signals, run

PIP_TOOLS = "pip-tools==7.6.2"
OPTIONS = (
    "--upgrade",
    "--generate-hashes",
    "--allow-unsafe",
    "--strip-extras",
    "--no-emit-options",
    "--no-emit-index-url",
    "--no-emit-trusted-host",
    "--no-emit-find-links",
)


def main():
    exit_on_signals()
    folder = ROOT / ".tools/lock"
    run("create .tools/lock", [sys.executable, "-m", "venv", "--clear", folder])
    run("install pip-tools", [folder / "bin/pip", "install", PIP_TOOLS])
    # Packages of this machine alone must not get into the lock files.
    variables = {k: v for k, v in os.environ.items() if k not in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL")}
    variables["CUSTOM_COMPILE_COMMAND"] = "make lock"
    for source in sorted(ROOT.glob("tools/*.in")):
        # A relative name, because pip-compile writes it into the lock file.
        names = ["--output-file", f"tools/{source.stem}.lock", f"tools/{source.name}"]
        command = [folder / "bin/pip-compile", *OPTIONS, *names]
        run(f"resolve {source.name}", command, variables=variables)


main()
