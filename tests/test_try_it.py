"""`make run`: at most one local stack is started, and whatever ends the start leaves no process behind."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.paths import MINISTACK, ROOT


class Tools:
    """Runs tools whose processes, and all that these start, can be told from others."""

    def __init__(self, folder):
        self.mark = f"{folder}/tmp"
        Path(self.mark).mkdir()
        self.starting = folder / "local.starting"
        self.state = folder / "local.json"
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self._environment |= {"AWS_DEFAULT_REGION": "us-east-1", "LOCAL_STACK": str(self.state)}
        # The local AWS gets no other variable of its caller's.
        self._environment |= {"TMPDIR": self.mark, "MINISTACK": str(MINISTACK)}

    def start(self, *command, **variables):
        return subprocess.Popen(
            [sys.executable, ROOT / "tools" / command[0], *command[1:]],
            env=self._environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command):
        """Returns a tool's output and exit status."""
        process = self.start(*command)
        return process.communicate(timeout=60)[0], process.returncode

    def processes(self):
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdigit() and self.mark.encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
        return found

    def local_aws(self):
        """The local AWS's process; None if there is none yet."""
        lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in self.processes()}
        return next((pid for pid, line in lines.items() if b"ministack_main.py" in line), None)


@pytest.fixture
def tools(tmp_path):
    tools = Tools(tmp_path)
    yield tools
    for process in tools.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


@pytest.fixture
def starting(tools):
    """`make run`'s process, at a moment when it is starting the local AWS."""
    process = tools.start("run.py", "temporary", "schedule", "")
    wait_until(tools.local_aws)
    yield process
    process.communicate(timeout=60)


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it has not happened in time"
        time.sleep(0.02)


def test_a_second_run_is_refused_while_the_first_one_starts(tools, starting):
    starting_process = json.loads(tools.starting.read_text())["pid"]
    # Otherwise, it may have started before the second one asks.
    os.kill(starting_process, signal.SIGSTOP)
    output, status = tools.run("run.py", "temporary", "schedule", "")
    os.kill(starting_process, signal.SIGCONT)
    assert status == 1 and f"process {starting_process}" in output and "make stop" in output
    assert starting.wait(timeout=60) == 0
    assert starting_process in tools.processes()
    assert tools.run("stop.py") == ("Stopped.\n", 0)
    assert tools.processes() == []


def test_a_second_run_replaces_a_stack_that_has_started(tools, starting):
    assert starting.wait(timeout=60) == 0
    before = tools.processes()
    output, status = tools.run("run.py", "temporary", "schedule", "")
    assert status == 0, output
    assert set(before).isdisjoint(tools.processes()) and tools.local_aws()
    assert tools.run("stop.py") == ("Stopped.\n", 0)
    assert tools.processes() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_the_start_leaves_no_process(tools, starting, number):
    starting.send_signal(number)
    output, _ = starting.communicate(timeout=60)
    assert starting.returncode == 128 + number and output.endswith("Stopped. Nothing is left running.\n"), output
    assert tools.processes() == []
    assert tools.run("stop.py") == ("Nothing is running.\n", 0)


def catches(process, number):
    caught = re.search(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
    return int(caught[1], 16) >> (number - 1) & 1


@pytest.mark.parametrize("tool", ["try_it.py", "run.py"])
def test_ctrl_c_during_the_imports_ends_with_a_word_and_no_traceback(tools, tool):
    process = tools.start(tool, "temporary", "schedule")
    # Python itself catches only SIGINT.
    wait_until(lambda: catches(process, signal.SIGTERM))
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (128 + signal.SIGINT, "Stopped. Nothing is left running.\n")
    assert tools.processes() == []


def test_a_stopped_start_says_that_the_earlier_stack_is_still_running(tools, starting):
    assert starting.wait(timeout=60) == 0
    process = tools.start("try_it.py", "temporary", "schedule")
    wait_until(lambda: catches(process, signal.SIGTERM))
    process.send_signal(signal.SIGINT)
    assert "earlier local stack is still running. To stop it: make stop" in process.communicate(timeout=60)[0]
    assert tools.run("stop.py") == ("Stopped.\n", 0)


def test_a_stack_can_be_stopped_while_it_starts(tools, starting):
    assert tools.run("stop.py") == ("Stopped.\n", 0)
    assert starting.wait(timeout=60) == 128 + signal.SIGTERM
    assert tools.processes() == []


def test_a_start_whose_parent_was_killed_can_be_stopped(tools, starting):
    starting.kill()
    starting.wait(timeout=60)
    assert tools.run("stop.py") == ("Stopped.\n", 0)
    assert tools.processes() == []


def test_the_local_aws_ends_with_the_process_that_keeps_it(tools, starting):
    assert starting.wait(timeout=60) == 0
    os.kill(json.loads(tools.state.read_text())["pid"], signal.SIGKILL)
    wait_until(lambda: not tools.processes())


class Compiling:
    """`make run`, with a program in the place of cargo."""

    def __init__(self, tools, folder):
        self._tools, self._folder = tools, folder

    def start(self, cargo):
        program = self._folder / "cargo"
        program.write_text(f"#!/bin/sh\n{cargo}\n")
        program.chmod(0o755)
        path = f"{self._folder}:{os.environ['PATH']}"
        return self._tools.start("try_it.py", "temporary", "schedule", PATH=path)


@pytest.fixture
def try_it(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    import try_it

    return try_it


@pytest.fixture
def compiling(tools, tmp_path, try_it):
    if not try_it.install_python.is_installed("ministack"):
        pytest.skip("it would install the local AWS")
    return Compiling(tools, tmp_path)


def test_a_run_can_be_stopped_while_it_compiles(tools, compiling):
    process = compiling.start("exec sleep 60")
    wait_until(lambda: len(tools.processes()) == 2)
    output, status = tools.run("run.py", "temporary", "schedule", "")
    assert status == 1 and f"process {process.pid}" in output
    assert tools.run("stop.py") == ("Stopped.\n", 0)
    output, _ = process.communicate(timeout=60)
    assert output.endswith("compile the function: stopped\nStopped. Nothing is left running.\n"), output
    assert tools.processes() == []


def test_a_failed_compilation_shows_why(tools, compiling):
    process = compiling.start("echo 'error: expected one of'; exit 101")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "error: expected one of" in output
    assert tools.processes() == []


def test_cargo_test_reuses_the_dependencies_that_make_run_compiles(try_it):
    def packages(*options):
        command = ["cargo", "tree", "--locked", "--prefix", "none", "--no-dedupe", "--format", "{p} {f}", *options]
        return set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines())

    only_here = packages("--edges", "normal,build", *try_it.FEATURES) - packages("--edges", "normal,build,dev")
    # Little depends on idna, and only a dependency of its own could turn on its feature `default`.
    assert {package.split()[0] for package in only_here} <= {"idna"}
