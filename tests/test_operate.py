"""`make run`, and the commands for what it leaves running: status, doctor, break, mend, rotate, rollback and stop."""

import io
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import boto3
import pytest
from support.documents import blocks
from support.emulated_function import ARCHITECTURE
from support.paths import BOOTSTRAP, MINISTACK, ROOT
from support.typed_terminal import run_at_terminal

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
def running(tool, operate, request):
    """What `make run` prints. A parameter is a further argument."""
    output, status = operate("status", "", "")
    assert status == 1 and "make run" in output
    output, status = tool("run.py", "temporary", "schedule", "", *getattr(request, "param", []))
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
    assert status == 0 and "Nothing to fix now: 1 Bedrock provider, seen with 1 API key." in output, output
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


@pytest.mark.parametrize("running", [["end_to_end"]], indirect=True)
def test_what_the_documents_try_locally_can_be_tried(running, operate):
    assert "had Braintrust call a model with them" in running
    # docs/end-to-end.md
    operate("break", "bedrock")
    report, status = operate("rotate", "", "", "force", "json")
    assert status == 1 and json.loads(report)["targets"][0]["error"]["class"] == "permission", report
    operate("mend")
    # docs/audit.md
    report, status = operate("rotate", "", "", "force", "json")
    [target] = json.loads(report)["targets"]
    assert status == 0 and target["ai_secrets"][0]["end_to_end"] == {"result": "proven"}, report
    assert target["aws_requests"][0]["call"] == "sts:AssumeRole" and target["aws_requests"][0]["request_id"]
    # docs/assume-role.md
    output, status = operate("break", "assume_role")
    assert status == 0 and "make status" in output
    report, status = operate("rotate", "", "", "json")
    assert status == 0 and json.loads(report)["targets"][0]["outcome"] == "uses_assume_role", report
    assert json.loads(operate("status", "", "", "json")[0])["targets"][0]["state"] == "uses_assume_role"
    operate("mend")
    assert json.loads(operate("status", "", "", "json")[0])["targets"][0]["state"] == "ok"
    # docs/revoke.md
    output, status = operate("revoke", "", "default", "json")
    assert status == 1 and "YES=true" in output
    report, status = operate("revoke", "", "default", "dry_run", "json")
    assert status == 0 and json.loads(report)["targets"][0]["outcome"] == "would_revoke", report
    report, status = operate("revoke", "", "default", "yes", "json")
    # Without AllowSessionRevocation, the old session works until it expires.
    [target] = json.loads(report)["targets"]
    assert status == 1 and target["outcome"] == "replaced" and target["revocation"]["remaining"], report


def test_no_target_is_not_all_targets(running, operate):
    for action in (["status"], ["revoke"], ["rotate"]):
        output, status = operate(*action, "", ",", "api_key")
        assert status == 1 and 'TARGETS="," names no target' in output, output


def test_the_status_shows_when_and_how_a_target_failed_and_that_it_succeeded_again(running, operate):
    assert _history(operate)["last failure"] == "none in the last 14 days"

    assert operate("break", "trust")[1] == 0
    for runs in ("1 run has", "2 runs have"):
        assert operate("rotate", "", "")[1] == 1
        failure = _history(operate)["last failure"]
        assert " ago: STS AssumeRole answered AccessDenied (permission); " in failure
        assert failure.endswith(f"; {runs} failed since the last success")
    assert operate("mend")[1] == 0
    found = _history(operate)
    assert found["last failure"].endswith(" ago: STS AssumeRole answered AccessDenied (permission)")
    assert found["last success"].endswith(" ago")


@pytest.mark.parametrize(
    "denied, unknown",
    [
        ("ReadTheMetrics", "history: unknown (cloudwatch:GetMetricData was denied: "),
        ("ReadTheLog", "classes of failures: unknown (logs:FilterLogEvents was denied: "),
        ("", None),
    ],
)
def test_the_policy_in_the_document_is_enough_and_without_its_parts_the_rest_is_shown(
    running, operate, tmp_path, denied, unknown
):
    assert operate("break", "trust")[1] == 0
    assert operate("rotate", "", "")[1] == 1
    _operate_with_policy(tmp_path / "local.json", denied)
    output, status = operate("status", "", "")
    assert status == 0 and "default: ok" in output and "holds the current" in output, output
    said = [line for line in output.splitlines() if "unknown (" in line]
    assert len(said) == 1 and said[0].startswith(unknown) if unknown else said == [], output
    assert ("last failure" in output) == (denied != "ReadTheMetrics"), output
    assert ("(permission)" in output) == (denied == ""), output


def _history(operate):
    """The rows of the one target's status, by their labels."""
    output, status = operate("status", "", "")
    assert status == 0, output
    output = output.replace("\n" + " " * 17, " ")
    return dict(re.findall(r"^  (\S.{0,12}\S) {2,}(\S.+)$", output, re.MULTILINE))


def _operate_with_policy(local, denied):
    """Makes the commands use a user whose policy is the one in the document, without the statement `denied`."""
    [policy] = [json.loads(text) for text in blocks(ROOT / "docs/operate.md", "json")]
    statements = [statement for statement in policy["Statement"] if statement["Sid"] != denied]
    state = json.loads(local.read_text())
    iam = boto3.session.Session(**state["credentials"]).client("iam", endpoint_url=state["endpoint_url"])
    iam.create_user(UserName="operator")
    iam.put_user_policy(
        UserName="operator", PolicyName="status", PolicyDocument=json.dumps({**policy, "Statement": statements})
    )
    key = iam.create_access_key(UserName="operator")["AccessKey"]
    state["credentials"] |= {
        "aws_access_key_id": key["AccessKeyId"],
        "aws_secret_access_key": key["SecretAccessKey"],
    }
    local.write_text(json.dumps(state))


@pytest.mark.parametrize(
    "goal, arguments",
    [
        ("status STACK=s TARGETS=a,b", "status 's' 'a,b'"),
        ("doctor STACK=s", "doctor 's' ''"),
        ("inventory STACK=s", "inventory 's'"),
        ("inventory JSON=true", "inventory '' json"),
        ("status JSON=true", "status '' '' json"),
        ("revoke TARGETS=a YES=true JSON=true", "revoke '' 'a' yes json"),
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
    command = ["make", "--dry-run", "--old-file=.tools/ministack/installed", *goal.split()]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (
        " ".join(printed.stdout.replace("\\", " ").split())
        == f".tools/ministack/bin/python tools/operate.py {arguments}"
    ), printed.stderr


@pytest.mark.parametrize(
    "goal", ["rotate REACTIVATE=true", "rollback FORCE=true", "rotate DRY_RUN=yes", "mend WHAT=trust"]
)
def test_make_refuses_a_variable_that_a_goal_does_not_take(goal):
    refused = subprocess.run(["make", "--dry-run", *goal.split()], cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2 and "accept" in refused.stderr


def test_deploy_py_installs_a_second_stack_locally(running, tool, tmp_path):
    local = json.loads((tmp_path / "local.json").read_text())
    answers = ["", local["braintrust_url"], local["braintrust_api_key"], "1", "on-call@example.com", ""]
    screen, status = run_at_terminal(
        [sys.executable, str(ROOT / "tools/deploy_locally.py"), ARCHITECTURE],
        os.environ | {"LOCAL_STACK": str(tmp_path / "local.json"), "BOOTSTRAP": str(BOOTSTRAP)},
        ROOT,
        [(f"{number}. ", answer) for number, answer in enumerate(answers, 1)],
    )
    assert status == 0 and "default: rotated" in screen, screen
    (ROOT / "deploy/my-rotator.yaml").unlink()


def test_without_a_local_stack_nothing_is_installed_locally(tool):
    assert tool("deploy_locally.py", ARCHITECTURE) == ("Nothing is running. Use `make run` first.\n", 1)


@pytest.mark.parametrize(
    "goal, message",
    [
        ("brake WHAT=trust", "There is no goal brake. Did you mean make break? To list all goals: make"),
        ("lint tests", "There is no goal tests. Did you mean make test? To list all goals: make"),
        ("frobnicate", "There is no goal frobnicate. To list all goals: make"),
    ],
)
def test_make_names_the_goal_that_is_nearest_to_an_unknown_one(goal, message):
    refused = subprocess.run(["make", "--dry-run", *goal.split()], cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2 and message in refused.stderr


def test_make_still_makes_files():
    made = subprocess.run(["make", "--dry-run", ".tools/ministack/installed"], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr


@pytest.mark.parametrize("arguments", [("break", "trust"), ("mend",)])
def test_what_works_only_on_the_local_stack_does_not_advise_a_deployed_one(operate, arguments):
    assert operate(*arguments) == ("Nothing is running. Start a local stack: make run\n", 1)


@pytest.mark.parametrize("failed", [False, True])
def test_answers_are_shown_without_characters_that_control_a_terminal(monkeypatch, failed):
    answer = {"targets": [{"ai_secret": "\x1b]0;owned\x07é\u202e\nok"}]}
    [shown] = _shown(monkeypatch, answer, failed)["targets"]
    assert shown == {"ai_secret": "\ufffd]0;owned\ufffdé\ufffd\ufffdok"}


def test_a_failure_that_is_plain_text_keeps_only_its_lines(monkeypatch):
    assert _shown(monkeypatch, "Task timed out\n\x1b[2J", failed=True) == "Task timed out\n\ufffd[2J"


def _shown(monkeypatch, answer, failed):
    """What RunningFunction.invoke returns if Lambda returns this answer."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    from running_function import RunningFunction

    text = answer if isinstance(answer, str) else json.dumps(answer)
    payload = {"errorMessage": text} if failed else answer
    reply = {"Payload": io.BytesIO(json.dumps(payload).encode()), **({"FunctionError": "Unhandled"} if failed else {})}
    function = RunningFunction.__new__(RunningFunction)
    function.name = "rotator"
    function.client = lambda service: SimpleNamespace(invoke=lambda **call: reply)
    shown, is_error = function.invoke(action="status")
    assert is_error == failed
    return shown
