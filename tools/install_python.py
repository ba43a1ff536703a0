"""Installs the Python tools that tools/NAME.lock lists into .tools/NAME, and refuses files with other hashes.

    install_python.py NAME

uv installs them, because it takes a tenth of pip's time. pip installs only uv.
"""

import ast
import hashlib
import os
import re
import subprocess
import sys

from environment import ROOT
from exclusive import wait_for_turn
from step import exit_on_signals, run

TOOLS = ROOT / ".tools"
UV = TOOLS / "installer/bin/uv"
# --no-deps, because the lock file names every package.
OPTIONS = ("--require-hashes", "--no-deps", "--only-binary", ":all:")
# Of pip's settings, those that decide where packages come from and how the connection is secured.
UV_NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
}


def lock_file(name):
    return ROOT / "tools" / f"{name}.lock"


def digest(name):
    return hashlib.sha256(lock_file(name).read_bytes()).hexdigest()


def is_installed(name):
    """Whether .tools/NAME has what the lock file lists now, and the Python that it was made with still exists."""
    try:
        return (TOOLS / name / "installed").read_text() == digest(name) and (TOOLS / name / "bin/python").exists()
    except OSError:
        return False


def install_uv():
    name = "installer"
    if is_installed(name):
        return
    run("create .tools/installer", [sys.executable, "-m", "venv", "--clear", TOOLS / name])
    pip = [TOOLS / name / "bin/pip", "--disable-pip-version-check", "install"]
    run("install uv", [*pip, *OPTIONS, "--requirement", lock_file(name)])
    (TOOLS / name / "installed").write_text(digest(name))


def settings():
    """The variables that make uv behave as pip would: it reads none of pip's settings, such as a company's mirror."""
    pip = [TOOLS / "installer/bin/pip", "config", "list"]
    given = for_uv(subprocess.run(pip, capture_output=True, text=True, check=True).stdout)
    ours = {"UV_NO_CONFIG": "1", "UV_SYSTEM_CERTS": "1", "UV_PYTHON_DOWNLOADS": "never"}
    return ours | {name: value for name, value in given.items() if name not in os.environ}


def for_uv(pip_config):
    """uv's names of what `pip config list` shows. As in pip, variables come before files."""
    found = [re.fullmatch(r"(:env:|global|install)\.([a-z-]+)=('.*')", line) for line in pip_config.splitlines()]
    ordered = sorted(filter(None, found), key=lambda match: match[1] == ":env:")
    return {UV_NAMES[match[2]]: ast.literal_eval(match[3]) for match in ordered if match[2] in UV_NAMES}


def install(name):
    folder = TOOLS / name
    install_uv()
    variables = os.environ | settings()
    run(f"create .tools/{name}", [UV, "venv", "--clear", "--python", sys.executable, folder], variables=variables)
    command = [UV, "pip", "install", "--python", folder, *OPTIONS, "--requirement", lock_file(name)]
    run(f"install tools/{name}.lock", command, variables=variables)
    (folder / "installed").write_text(digest(name))


def main():
    [name] = sys.argv[1:]
    exit_on_signals()
    with wait_for_turn(TOOLS / "install.lock", "installs Python tools"):
        if is_installed(name):
            (TOOLS / name / "installed").touch()  # make compares times
        else:
            install(name)


if __name__ == "__main__":
    main()
