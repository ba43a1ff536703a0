"""What `make` says if something that a goal needs is missing from the machine."""

import ast
import shutil
import subprocess
import sys
import time

import pytest
from support.paths import ROOT

PREREQUISITES = ROOT / "tools/prerequisites.py"


class Machine:
    """A machine that has only the programs that a test gives it."""

    def __init__(self, folder):
        self._programs, self._home = folder / "bin", folder / "home"
        self._programs.mkdir()
        self._home.mkdir()
        self.has(cargo="echo 'cargo 1.99.0 (0000000 2026-01-01)'", cc="true")

    def has(self, **programs):
        for name, commands in programs.items():
            self._write(self._programs / name, commands)

    def lacks(self, name):
        (self._programs / name).unlink()

    def has_at_home(self, name):
        self._write(self._home / name, "true")

    def check(self, goals, change=""):
        """Checks goals in a Python that `change` has changed; returns what is printed, and what is said to make."""
        program = f"import importlib.util, runpy, sys\n{change}\nsys.argv = ['prerequisites.py', {goals!r}]\n"
        program += f"runpy.run_path({str(PREREQUISITES)!r}, run_name='__main__')"
        done = subprocess.run(
            [sys.executable, "-c", program], env=self._environment(), capture_output=True, text=True, check=True
        )
        return done.stderr, done.stdout.strip()

    def make(self, *arguments):
        for name in ("make", "sh", "uname", "find", "touch", "mkdir", "rm"):
            (self._programs / name).symlink_to(shutil.which(name))
        command = ["make", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=self._environment(), capture_output=True, text=True)
        return done.stdout + done.stderr, done.returncode

    def _environment(self):
        return {"PATH": str(self._programs), "HOME": str(self._home)}

    @staticmethod
    def _write(file, commands):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{commands}\n")
        file.chmod(0o755)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_a_machine_that_has_everything_is_told_nothing(machine):
    assert machine.check("run") == ("", "")
    assert machine.check("test lint") == ("", "")


def test_cargo_is_missing(machine):
    machine.lacks("cargo")
    shown, error = machine.check("run")
    assert shown.startswith("cargo was not found. Rust 1.") and "sh.rustup.rs | sh" in shown
    assert error == "make run needs more than this machine has"


def test_cargo_is_not_in_the_path(machine):
    machine.lacks("cargo")
    machine.has_at_home(".cargo/bin/cargo")
    assert 'Run: . "$HOME/.cargo/env"' in machine.check("run")[0]


@pytest.mark.parametrize("version", ["1.63.0", "1.94.0", "1.9.0"])
def test_cargo_is_too_old(machine, version):
    machine.has(cargo=f"echo 'cargo {version}'")
    shown, _ = machine.check("run")
    assert f"Found: {version} (" in shown and "sh.rustup.rs" in shown
    machine.has(rustup="true")
    assert "Run: rustup update stable" in machine.check("run")[0]


@pytest.mark.parametrize("version", ["1.94.1", "1.100.0", "1.97.0-nightly", "2.0.0"])
def test_cargo_is_new_enough(machine, version):
    machine.has(cargo=f"echo 'cargo {version}'")
    assert machine.check("run") == ("", "")


def test_a_toolchain_that_rustup_would_install_is_not_missing(machine):
    machine.has(cargo='[ "$RUSTUP_AUTO_INSTALL" = 0 ] && exit 1; sleep 60')
    assert machine.check("run") == ("", "")


@pytest.mark.parametrize(
    "manager, command",
    [
        ("apt-get", "Run: sudo apt-get install build-essential"),
        ("dnf", "Run: sudo dnf install gcc"),
        ("zypper", "Run: sudo zypper install gcc"),
        ("pacman", "Run: sudo pacman -S base-devel"),
        ("unknown", "Debian's package is called build-essential."),
    ],
)
def test_a_c_compiler_is_missing(machine, manager, command):
    machine.lacks("cc")
    machine.has(**{manager: "true"})
    shown, _ = machine.check("run")
    assert "No C compiler" in shown and command in shown


def test_everything_that_is_missing_is_said_at_once(machine):
    machine.lacks("cc")
    machine.lacks("cargo")
    shown, _ = machine.check("run", "importlib.util.find_spec = lambda name: None")
    assert "cargo was not found" in shown and "No C compiler" in shown and "ensurepip are missing" in shown


def test_debian_has_split_the_module_venv_from_python(machine):
    machine.has(**{"apt-get": "true"})
    shown, _ = machine.check("status", "importlib.util.find_spec = lambda name: None")
    version = "{}.{}".format(*sys.version_info)
    assert f"Run: sudo apt-get install python{version}-venv" in shown


OLD_PYTHON = "sys.version_info, sys.version = (3, 9, 2, 'final', 0), '3.9.2 (default)'"


def test_python_is_too_old(machine):
    machine.has(dnf="true")
    shown, _ = machine.check("run", OLD_PYTHON)
    assert f"Found: 3.9.2 ({sys.executable})" in shown
    assert "Run: sudo dnf install python3.11\n  Then: make run PYTHON=python3.11" in shown


def test_a_newer_python_has_another_name(machine):
    machine.has(**{"python3.12": "true"})
    assert "Run: make doctor PYTHON=python3.12" in machine.check("doctor", OLD_PYTHON)[0]


def test_the_function_runs_only_on_linux(machine):
    change = "sys.platform = 'darwin'"
    assert "only on Linux. Found: darwin" in machine.check("run", change)[0]
    assert machine.check("status", change) == ("", "")


def test_goals_that_compile_nothing_need_no_compiler(machine):
    machine.lacks("cc")
    machine.lacks("cargo")
    for goal in ("", "help", "stop", "clean", "status", "doctor", "rotate", "rollback", "lock"):
        assert machine.check(goal) == ("", "")


@pytest.mark.parametrize("name", ["prerequisites.py", "variables.py"])
def test_an_old_python_can_parse_what_tells_it_to_go(name):
    ast.parse((ROOT / "tools" / name).read_text(), feature_version=(3, 4))


def test_make_says_within_two_seconds_what_is_missing(machine):
    machine.lacks("cc")
    began = time.monotonic()
    output, status = machine.make("run", f"PYTHON={sys.executable}")
    assert time.monotonic() - began < 2
    assert status == 2 and "No C compiler" in output and "*** make run needs more than" in output


def test_make_says_that_there_is_no_python(machine):
    output, status = machine.make("run")
    assert status == 2 and "Python 3.11 or newer was not found" in output and "apt-get install python3" in output


def test_a_misspelled_variable_is_refused(machine):
    output, status = machine.make("run", f"PYTHON={sys.executable}", "KINDS=access_key")
    accepted = "KIND, TRIGGER, PROJECT, END_TO_END, PYTHON"
    assert status == 2 and f"make run does not accept KINDS. It accepts {accepted}" in output
