"""Says what this machine lacks for the goals of `make`, and which command installs it.

    prerequisites.py GOALS

GOALS is a list separated by spaces. The problems go to standard error. If there are any, standard output says so in a
sentence, which becomes make's own error.
"""

# Whatever Python is found runs this file, so older versions must be able to parse it.
import importlib.util
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PYTHON = (3, 11)
NEWER_PYTHONS = ["python3.14", "python3.13", "python3.12", "python3.11"]
# Goals that need no Python tools, goals that compile something, and goals that run the function or a local AWS.
NO_TOOLS = ["help", "clean", "stop"]
COMPILE = ["run", "test", "test-fast", "test-independent", "test-fleet", "lint", "build", "invoke", "deploy", "bench"]
COMPILE += ["fuzz", "mutants", "sbom", "reproducible"]
RUN = ["run", "test", "test-fast", "test-independent", "test-fleet", "invoke", "bench", "mutants"]
INSTALL_RUST = "Run: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"


def package(apt, dnf, zypper, pacman):
    """How to install a package whose name depends on the package manager."""
    for program, command in [
        ("apt-get", "apt-get install " + apt),
        ("dnf", "dnf install " + dnf),
        ("zypper", "zypper install " + zypper),
        ("pacman", "pacman -S " + pacman),
    ]:
        if shutil.which(program):
            return "Run: sudo " + command
    return "Install it with your system's package manager. Debian's package is called {}.".format(apt)


def numbers(version):
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def python_problem(goals):
    if sys.version_info >= PYTHON:
        return None
    found = "Python 3.11 or newer is needed. Found: {} ({})".format(sys.version.split()[0], sys.executable)
    for name in NEWER_PYTHONS:
        if shutil.which(name):
            return found, "Run: " + " ".join(["make"] + goals + ["PYTHON=" + name])
    install = package("python3.11 python3.11-venv", "python3.11", "python311", "python")
    return found, install + "\n  Then: " + " ".join(["make"] + goals + ["PYTHON=python3.11"])


def venv_problem():
    if importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip"):
        return None
    version = "python{}.{}".format(*sys.version_info[:2])
    number = version.replace("python", "").replace(".", "")
    missing = "The modules venv and ensurepip are missing from {}.".format(sys.executable)
    return missing, package(version + "-venv", version, "python" + number, "python")


def compiler_problem():
    if shutil.which("cc"):
        return None
    return "No C compiler was found (cc).", package("build-essential", "gcc", "gcc", "base-devel")


def cargo_problem():
    with open(os.path.join(ROOT, "Cargo.toml")) as manifest:
        needed = re.search(r'^rust-version = "(.*)"', manifest.read(), re.MULTILINE).group(1)
    cargo = shutil.which("cargo")
    if not cargo:
        if os.path.exists(os.path.expanduser("~/.cargo/bin/cargo")):
            return "cargo is installed, but its folder is not in PATH.", 'Run: . "$HOME/.cargo/env"'
        return "cargo was not found. Rust {} or newer is needed.".format(needed), INSTALL_RUST
    found = cargo_version()
    if not found or numbers(found) >= numbers(needed):
        return None
    outdated = "Rust {} or newer is needed. Found: {} ({})".format(needed, found, cargo)
    return outdated, "Run: rustup update stable" if shutil.which("rustup") else INSTALL_RUST


def cargo_version():
    """cargo's version; None if rustup must first install it, which it does when cargo compiles something."""
    environment = dict(os.environ, RUSTUP_AUTO_INSTALL="0")
    try:
        shown = subprocess.check_output(["cargo", "--version"], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        return None
    return shown.decode().split()[1]


def problems(goals):
    python = python_problem(goals)
    if python:
        yield python
    if any(goal in RUN for goal in goals) and not sys.platform.startswith("linux"):
        yield "The function runs only on Linux. Found: " + sys.platform, "Use a Linux machine or container."
    if not python and any(goal not in NO_TOOLS for goal in goals):
        yield venv_problem()
    if any(goal in COMPILE for goal in goals):
        yield cargo_problem()
        yield compiler_problem()


def main():
    goals = sys.argv[1].split()
    found = [problem for problem in problems(goals) if problem]
    for problem, remedy in found:
        sys.stderr.write("{}\n  {}\n".format(problem, remedy))
    if found:
        print("{} needs more than this machine has".format(" ".join(["make"] + goals)))  # make itself ends the sentence


main()
