"""`make run`, and the commands for what it leaves running: status, doctor, break, rotate, rollback and stop."""

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
        "LOCAL_STACK": str(tmp_path / "local.json"),
    }

    def tool(name, *arguments):
        command = [sys.executable, str(ROOT / "tools" / name), *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
        return done.stdout + done.stderr, done.returncode

    return tool


@pytest.fixture
def operate(tool):
    return lambda action, argument="": tool("operate.py", action, "", argument)


@pytest.fixture
def running(tool, operate):
    output, status = operate("status")
    assert status == 1 and "make run" in output
    output, status = tool("run.py", "temporary", "schedule")
    assert status == 0, output
    yield output
    assert operate("stop") == ("Stopped.\n", 0)
    assert operate("stop") == ("Nothing is running.\n", 0)


def test_operators_see_a_healthy_function_a_broken_one_and_a_rollback(running, operate):
    assert "can call Bedrock    no                                  yes" in running
    output, status = operate("status")
    assert status == 0 and "next scheduled run" in output, output
    output, status = operate("doctor")
    assert status == 0 and "call Bedrock in us-east-1" in output, output

    assert operate("break", "ai_secret")[1] == 0
    output, status = operate("status")
    assert status == 1 and "out_of_step" in output, output
    output, status = operate("force")
    assert status == 0 and "default: rotated" in output, output
    assert operate("status")[1] == 0
    assert operate("break", "ai_secret")[1] == 0

    output, status = operate("rollback", "default")
    assert status == 0 and "rolled_back" in output, output
    assert operate("status")[1] == 0
    output, status = operate("rollback", "default")
    assert status == 1 and "conflict" in output, output

    for what, call in [("bedrock", "ListFoundationModels"), ("trust", "AssumeRole")]:
        assert operate("break", what)[1] == 0
        output, status = operate("doctor")
        assert status == 1 and "permission" in output and call in output, output
    output, status = operate("break", "everything")
    assert status == 1 and "WHAT" in output
