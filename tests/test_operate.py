"""`make run`, and the commands for what it leaves running: status, doctor, break, mend, rotate, rollback and stop."""

import json
import os
import subprocess
import sys

import pytest
from support.paths import MINISTACK, ROOT

pytestmark = pytest.mark.skipif(
    not (ROOT / ".tools/ministack/bin/ministack").samefile(MINISTACK), reason="make run uses the tools in .tools"
)


@pytest.fixture
def tool(tmp_path):
    """Runs a tool, and returns its output and its exit status."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {
        "AWS_DEFAULT_REGION": "us-east-1",
        "SAM_CLI_TELEMETRY": "0",
        "COLUMNS": "140",  # is not what counts without a terminal
        "LOCAL_STACK": str(tmp_path / "local.json"),
    }

    def tool(name, *arguments):
        command = [sys.executable, str(ROOT / "tools" / name), *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
        return done.stdout + done.stderr, done.returncode

    return tool


@pytest.fixture
def operate(tool):
    return lambda *arguments: tool("operate.py", *arguments)


@pytest.fixture
def running(tool, operate):
    """What `make run` prints."""
    output, status = operate("status", "", "")
    assert status == 1 and "make run" in output
    output, status = tool("run.py", "temporary", "schedule", "")
    assert status == 0, output
    yield output
    assert operate("stop") == ("Stopped.\n", 0)
    assert operate("stop") == ("Nothing is running.\n", 0)


def test_a_first_run_tells_a_short_story_and_its_tour_can_be_followed(running, operate):
    story = running[running.index("Before") :].splitlines()
    assert len(story) <= 30 and "\x1b" not in running
    assert all(len(line) <= 80 or " " not in line.strip() for line in story), running
    before, after = running.index("Before"), running.index("\nAfter\n")
    assert "refused (403 UnrecognizedClientException" in running[before:after]
    assert "A call to a model with it: works" in running[after:]
    commands = [line.partition("#")[0].split() for line in story if line.startswith("  make ")]
    assert commands == [["make", "break", "WHAT=trust"], ["make", "doctor"], ["make", "mend"]]

    assert "make doctor" in operate("break", "trust")[0]
    output, status = operate("doctor", "", "")
    assert status == 1 and "1 problem: STS AssumeRole answered AccessDenied" in output.splitlines(), output
    assert operate("mend")[1] == 0
    output, status = operate("doctor", "", "default")
    assert (status, output.splitlines()[-1]) == (0, "Healthy; 2 things only a rotation can tell"), output


def test_operators_see_a_healthy_function_a_changed_ai_secret_and_a_rollback(running, operate):
    output, status = operate("status", "", "")
    assert status == 0 and "at the next scheduled run, by the schedule" in output, output
    output, status = operate("inventory", "")
    assert status == 0 and "Nothing to mend now: 1 Bedrock provider, seen with 1 API key." in output, output
    output, status = operate("inventory", "", "json")
    assert status == 0 and json.loads(output)["providers"][0]["targets"] == ["default"], output

    assert operate("break", "ai_secret")[1] == 0
    output, status = operate("status", "", "default")
    assert status == 1 and "default: out of step" in output and "make rotate TARGETS=default" in output, output
    output, status = operate("rotate", "", "", "dry_run")
    assert status == 0 and "nothing has changed" in output, output
    assert operate("status", "", "")[1] == 1
    output, status = operate("rotate", "", "", "force")
    assert status == 0 and "default: rotated" in output, output
    assert operate("status", "", "")[1] == 0

    output, status = operate("rollback", "", "default", "dry_run", "reactivate")
    assert status == 0 and "default: would roll back" in output, output
    output, status = operate("rollback", "", "default")
    assert status == 0 and "default: rolled back" in output, output
    assert operate("status", "", "")[1] == 0
    output, status = operate("rollback", "", "default")
    assert status == 1 and "Secrets Manager rollback: " in output, output
    output, status = operate("rollback", "", "")
    assert status == 1 and "make rollback TARGETS=default" in output, output
    output, status = operate("rotate", "", "nobody")
    assert status == 1 and "default" in output, output


@pytest.mark.parametrize(
    "goal, arguments",
    [
        ("status STACK=s TARGETS=a,b", "status 's' 'a,b'"),
        ("doctor STACK=s", "doctor 's' ''"),
        ("inventory STACK=s", "inventory 's'"),
        ("inventory JSON=true", "inventory '' json"),
        ("rotate TARGETS=a FORCE=true DRY_RUN=true", "rotate '' 'a' force dry_run"),
        ("rotate", "rotate '' ''"),
        ("rollback TARGETS=a REACTIVATE=true", "rollback '' 'a' reactivate"),
        ("rollback TARGETS=a DRY_RUN=true", "rollback '' 'a' dry_run"),
        ("break WHAT=trust", "break 'trust'"),
        ("mend", "mend"),
    ],
)
def test_make_passes_its_variables_on(goal, arguments):
    # --dry-run prints the command, and --old-file leaves out how the tools are installed.
    command = ["make", "--dry-run", "--old-file=.tools/sam/installed", *goal.split()]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (
        " ".join(printed.stdout.replace("\\", " ").split()) == f".tools/sam/bin/python tools/operate.py {arguments}"
    ), printed.stderr


@pytest.mark.parametrize(
    "goal", ["rotate REACTIVATE=true", "rollback FORCE=true", "rotate DRY_RUN=yes", "mend WHAT=trust"]
)
def test_make_refuses_a_variable_that_a_goal_does_not_take(goal):
    refused = subprocess.run(["make", "--dry-run", *goal.split()], cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2 and "accept" in refused.stderr
