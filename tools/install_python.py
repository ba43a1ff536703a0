"""Installs the Python tools that tools/NAME.lock lists into .tools/NAME, and refuses files with other hashes.

    install_python.py NAME
"""

import sys

from environment import ROOT
from step import exit_on_signals, run


def main():
    [name] = sys.argv[1:]
    exit_on_signals()
    folder, lock = ROOT / ".tools" / name, ROOT / "tools" / f"{name}.lock"
    run(f"create .tools/{name}", [sys.executable, "-m", "venv", "--clear", folder])
    # --no-deps, because the lock file names every package.
    options = ["--disable-pip-version-check", "--require-hashes", "--no-deps", "--only-binary", ":all:"]
    run(f"install tools/{name}.lock", [folder / "bin/pip", "install", *options, "--requirement", lock])
    (folder / "installed").touch()


main()
