"""What `make status`, `make doctor`, `make rotate` and `make rollback` show of the function's answers."""

import ast
import re
import sys
from datetime import datetime, timedelta, timezone

import pytest
from support.paths import ROOT

sys.path.append(str(ROOT / "tools"))
import answers  # noqa: E402
import terminal  # noqa: E402
from goals import command_for  # noqa: E402
from page import Page  # noqa: E402
from run_history import History, Past  # noqa: E402

NOW = datetime(2026, 1, 10, tzinfo=timezone.utc)
ACCOUNT = "arn:aws:iam::123456789012:"
ROLE = f"{ACCOUNT}role/a-team-with-a-long-name/bedrock-braintrust-rotator-BedrockRole-3FE477A374EA0"
SECRET = (
    "arn:aws:secretsmanager:us-east-1:123456789012:secret:bedrock-braintrust-rotator-StagedSecret-3FE477A374EA0-aB3dE6"
)
ROTATE_SECRET = f"aws secretsmanager rotate-secret --secret-id {SECRET}"
LONG_NAME = "t" * 48
COMMAND = command_for("rotator")
ESCAPE = re.compile(r"\x1b\[\d+m")
DENIED = {
    "class": "permission",
    "service": "sts",
    "call": "AssumeRole",
    "problem": "answered AccessDenied",
    "remedy": f"Check that the role {ROLE} exists. Then see its trust policy: `aws iam get-role --role-name {ROLE}`",
    "aws": {"message": f"User: {ACCOUNT}role/x is not authorized to perform: sts:AssumeRole on resource: {ROLE}"},
}


def later(seconds):
    return (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def target(state="ok", **fields):
    """A target of a status; a field that is None is left out."""
    found = {
        "name": LONG_NAME,
        "state": state,
        "kind": "temporary",
        "region": "us-east-1",
        "secret_id": SECRET,
        "credential_id": "ASIA4F6820E498BF4B47",
        "age_seconds": 600,
        "expires_at": later(3000),
        "rotated_by": "schedule",
        "next_rotation": "next_scheduled_run",
        "rotation_under_way": False,
        "ai_secrets": [{"ai_secret": '"A name of several words for AWS Bedrock"', "holds_current": state == "ok"}],
        **fields,
    }
    return {field: value for field, value in found.items() if value is not None}


def checked(*lines, name="prod"):
    """A target of a check: for each line what is checked, the result, and the note or the error."""
    keys = {str: "note", dict: "error"}
    shown = [
        {"what": what, "result": result, **{keys[type(extra)]: extra for extra in more}}
        for what, result, *more in lines
    ]
    return {"name": name, "ok": all(line["result"] != "failed" for line in shown), "lines": shown}


def done(outcome, **fields):
    """A target of a report."""
    return {"name": "prod", "outcome": outcome, "kind": "temporary", "duration_ms": 5, **fields}


def past(*unknown, **histories):
    return Past(histories, list(unknown))


def failing(failed=3, failure=None, is_unordered=False):
    """A success, and failures since."""
    failure = failure or {"outcome": "failed", "error": DENIED}
    return History(NOW - timedelta(hours=3), NOW - timedelta(minutes=5), failed, is_unordered, failure)


def status_lines(page, *targets, past=past()):
    return answers.status({"targets": list(targets)}, past, page, NOW, COMMAND)


def doctor_lines(page, *targets):
    return answers.doctor({"targets": list(targets)}, page)


def report_lines(page, *targets, **fields):
    return answers.report({"targets": list(targets), **fields}, page, NOW, COMMAND)


FAILED = (f"assume the role {ROLE}", "failed", DENIED)
UNKNOWN = (f"write the secret {SECRET}", "unknown", "only a rotation can tell whether the function may write it")
WARNING = ("the rotation", "warning", "a rotation isn't finished: the next scheduled run resumes it")
SHOWN = {
    "a status": lambda page: status_lines(
        page,
        target(warnings=[f"the ai_secret still has fields that are not rotated, and {SECRET} is its copy"]),
        target("never_rotated", rotated_by="secrets_manager", next_rotation=None, credential_id=None),
        target("unknown", error=DENIED),
    ),
    "a status with its history": lambda page: status_lines(
        page,
        target("overdue", name="prod"),
        past=past("classes of failures: unknown (logs:FilterLogEvents was denied: see the policy)", prod=failing()),
    ),
    "a status of many": lambda page: status_lines(page, *[target() for _ in range(9)], target("expired")),
    "a check": lambda page: doctor_lines(page, checked(("find the ai_secret", "ok"), FAILED, UNKNOWN, WARNING)),
    "a report": lambda page: report_lines(
        page,
        done("failed", error=DENIED, warnings=["the probe was slow"]),
        done("left_to_secrets_manager", secret_id=SECRET),
        done("rotated", credential_id="ASIA4F6820E498BF4B47", expires_at=later(3600)),
        dry_run=True,
    ),
}


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("shown", SHOWN)
def test_lines_fit_the_page_unless_an_arn_or_a_command_alone_does_not(shown, width):
    for line in SHOWN[shown](Page(width)):
        is_whole = " " not in line.strip() or line.strip().startswith(("aws ", "make "))
        assert len(line) <= width or is_whole, line
        assert shown == "a report" or len(line) < 100 or is_whole, line


@pytest.mark.parametrize("shown", SHOWN)
def test_colors_change_nothing_but_the_colors(shown):
    for width in (80, 140):
        plain, colored = SHOWN[shown](Page(width)), SHOWN[shown](Page(width, colors=True))
        assert "\x1b" not in "".join(plain) and "\x1b" in "".join(colored)
        assert [ESCAPE.sub("", line) for line in colored] == plain


def test_arns_and_commands_are_never_cut():
    lines = [line.strip() for shown in SHOWN.values() for line in shown(Page(80))]
    assert ROTATE_SECRET in lines
    assert f"aws iam get-role --role-name {ROLE}" in lines
    assert any(line.endswith(ROLE) for line in lines)


def test_a_command_in_the_middle_of_a_text_is_not_cut_either():
    text = "Put the key there with `aws secretsmanager put-secret-value --secret-id x`, and then rotate."
    assert Page(50).paragraph(text) == [
        "Put the key there with",
        "`aws secretsmanager put-secret-value --secret-id x`,",
        "and then rotate.",
    ]


@pytest.mark.parametrize(
    "found, advice",
    [
        (target("never_rotated"), "make rotate STACK=rotator TARGETS={name}"),
        (target("never_rotated", rotated_by="secrets_manager"), ROTATE_SECRET),
        (target("never_rotated", rotated_by="secrets_manager", secret_id=None), "aws secretsmanager rotate-secret"),
        (target("overdue"), "make doctor STACK=rotator TARGETS={name}"),
        (target("overdue", kind="access_key"), "make doctor STACK=rotator TARGETS={name}"),
        (target("expired", expires_at=later(-60)), "make rotate STACK=rotator TARGETS={name}"),
        (target("expired", rotated_by="secrets_manager", expires_at=later(-60)), ROTATE_SECRET),
        (target("out_of_step"), "make rotate STACK=rotator TARGETS={name}"),
        (target("out_of_step", rotated_by="secrets_manager"), "make rotate STACK=rotator TARGETS={name}"),
        (target("unknown"), "make doctor STACK=rotator TARGETS={name}"),
        (target("unknown", error=DENIED), "aws iam get-role"),
        (target("expired", rotation_under_way=True), "make rotate STACK=rotator TARGETS={name}"),
        (target(rotation_under_way=True), "make rotate STACK=rotator TARGETS={name}"),
        (target(rotation_under_way=True, rotated_by="secrets_manager"), "make doctor STACK=rotator TARGETS={name}"),
    ],
)
def test_every_state_that_is_not_ok_comes_with_a_command(found, advice):
    lines = [line.strip() for line in status_lines(Page(80), found)]
    assert lines[0] == f"{LONG_NAME}: {found['state'].replace('_', ' ')}"
    commands = [line for line in lines if line.startswith(("make ", "aws "))]
    assert len(commands) == 1 and commands[0].startswith(advice.format(name=LONG_NAME)), lines


def test_a_target_that_is_ok_is_shown_without_advice():
    assert status_lines(
        Page(80), target(name="prod", kind="access_key", expires_at=None, next_rotation=later(86_400 * 5))
    ) == [
        "prod: ok",
        "  kind           access_key in us-east-1",
        "  credentials    ASIA4F6820E498BF4B47, 10 minutes old",
        "  next rotation  in 5 days, by the schedule",
        "  last success   unknown; the current credentials were created 10 minutes ago",
        '  ai_secret      "A name of several words for AWS Bedrock" holds the current',
        "                 credentials",
    ]


def row(label, shown, known):
    """The text of one row in a target's block; None if there is no such row."""
    text = "\n".join(status_lines(Page(99), shown, past=known)).replace("\n" + " " * 17, " ")
    found = re.search(rf"^  {label} +(.+)$", text, re.MULTILINE)
    return found and found[1]


def minutes_ago(minutes):
    return NOW - timedelta(minutes=minutes)


DEFERRED = {"outcome": "deferred"}
WAS_DENIED = "5 minutes ago: STS AssumeRole answered AccessDenied (permission)"


@pytest.mark.parametrize(
    "found, text",
    [
        (History(minutes_ago(20), None, 0, False, None), "none in the last 14 days"),
        (History(minutes_ago(3), minutes_ago(5), 0, False, {"error": DENIED}), WAS_DENIED),
        (failing(1), WAS_DENIED + "; 1 run has failed since the last success"),
        (failing(3), WAS_DENIED + "; 3 runs have failed since the last success"),
        (failing()._replace(last_success=None), WAS_DENIED + "; 3 runs have failed in the last 14 days"),
        (failing(0, is_unordered=True), WAS_DENIED + "; in the same minute as the last success"),
        (failing(2, is_unordered=True), WAS_DENIED + "; at least 2 runs have failed since the last success"),
        (failing(0, DEFERRED), "5 minutes ago: too little time was left for this target (deferred)"),
        (failing(0)._replace(failure=None), "5 minutes ago, of an unknown class"),
    ],
)
def test_the_last_failure_is_shown_with_its_class_and_how_often_it_failed_since(found, text):
    assert row("last failure", target(name="prod"), past(prod=found)) == text


NEVER_RUN = History(None, None, 0, False, None)


def succeeded(minute):
    return past(prod=NEVER_RUN._replace(last_success=minutes_ago(minute)))


@pytest.mark.parametrize(
    "shown, known, text",
    [
        # The metrics know the minute.
        (target(name="prod"), past(prod=failing()), "3 hours ago"),
        # The credentials were created in it, or became current in it.
        (target(name="prod", age_seconds=30), succeeded(1), "30 seconds ago"),
        (target(name="prod", age_seconds=90, current_since=later(-10)), succeeded(1), "10 seconds ago"),
        (target(name="prod", age_seconds=90), succeeded(1), "60 seconds ago"),
        # The metrics don't reach back to it.
        (target(name="prod", current_since=later(-20 * 86_400)), past(prod=NEVER_RUN), "20 days ago"),
        (
            target(name="prod"),
            past(prod=NEVER_RUN),
            "none in the last 14 days; the current credentials were created 10 minutes ago",
        ),
        # The metrics can't be read.
        (target(name="prod", current_since=later(-20 * 86_400)), past(), "20 days ago"),
        (target(name="prod"), past(), "unknown; the current credentials were created 10 minutes ago"),
        (target(name="prod", secret_id=None), past(), "unknown; the ai_secret last changed 10 minutes ago"),
        (target("never_rotated", name="prod", age_seconds=None), past(), "unknown"),
        (target("never_rotated", name="prod", age_seconds=None), past(prod=NEVER_RUN), "none in the last 14 days"),
    ],
)
def test_the_last_success_is_shown_as_far_as_it_is_known(shown, known, text):
    assert row("last success", shown, known) == text


def test_without_the_metrics_there_is_one_line_about_it_and_no_last_failure():
    reason = "history: unknown (cloudwatch:GetMetricData was denied)"
    lines = status_lines(Page(80), target(name="prod"), past=past(reason))
    assert lines[-2:] == ["", reason]
    assert row("last failure", target(name="prod"), past(reason)) is None


def test_a_target_of_many_whose_last_run_failed_gets_a_block_although_it_is_ok():
    many = [target(name=f"ok-{number}") for number in range(9)]
    known = past(**{"ok-2": failing(), "ok-3": failing(0, is_unordered=True), "ok-4": failing(0)})
    lines = status_lines(Page(80), *many, past=known)
    assert [line for line in lines if line.endswith(": ok")] == ["ok-2: ok", "ok-3: ok"]
    assert lines[-1] == "9 of 9 targets are ok."


@pytest.mark.parametrize(
    "entry, text",
    [
        ({"holds_current": True, "access_key_id": "ASIA1"}, "x holds the current credentials"),
        ({"holds_current": False, "access_key_id": "AKIA1"}, "x holds other credentials (AKIA1)"),
        ({"holds_current": False}, "x holds other credentials"),
        ({"access_key_id": "ASIA1"}, "x holds ASIA1"),
        ({}, "x holds no access key"),
        ({"error": DENIED}, "x could not be read"),
    ],
)
def test_each_destination_says_what_it_holds(entry, text):
    lines = status_lines(Page(80), target(ai_secrets=[{"ai_secret": "x", **entry}]))
    assert f"  ai_secret      {text}" in lines


@pytest.mark.parametrize("kind", ["short_term_api_key", "long_term_api_key"])
def test_an_api_key_is_said_to_be_unreadable(kind):
    lines = status_lines(Page(80), target(kind=kind, ai_secrets=[{"ai_secret": "x"}]))
    assert "  ai_secret      x holds an API key, which can't be read back" in lines


def test_of_many_targets_only_those_that_need_attention_get_a_block():
    many = [target(name=f"ok-{number}") for number in range(97)]
    lines = status_lines(Page(80), target("expired", name="bad"), *many, target(name="warned", warnings=["look"]))
    assert lines[:97] == [f"ok-{n}: ok, temporary, ASIA4F6820E498BF4B47, expires in 50 minutes" for n in range(97)]
    assert [line for line in lines[97:] if line.endswith((": ok", ": expired"))] == ["bad: expired", "warned: ok"]
    assert lines[-1] == "98 of 99 targets are ok."


LEFT_OUT = "The answer had no room for these targets: {}. To see one, name it with TARGETS=…."
# To name a target would rotate or revoke it once more.
LEFT_OUT_OF_A_REPORT = "The answer had no room for these targets: {}. The function's log has all of them."


def test_targets_that_the_answer_has_no_room_for_are_counted():
    left_out = {"ok": 5, "uses_assume_role": 1}
    answer = {"targets": [target("expired", name="bad"), target(name="prod")], "left_out": left_out}
    lines = answers.status(answer, past(), Page(80), NOW, COMMAND)
    assert "7 of 8 targets are ok." in lines
    assert " ".join(lines[-2:]) == LEFT_OUT.format("5 ok, 1 uses assume role")
    lines = answers.doctor({"targets": [checked(FAILED)], "left_out": {"ok": 7}}, Page(99))
    assert LEFT_OUT.format("7 ok") in lines and lines[-1].startswith("1 problem")
    lines = report_lines(Page(99), done("rotated"), left_out={"not_due": 9})
    assert " ".join(lines[-2:]).strip() == LEFT_OUT_OF_A_REPORT.format("9 not due")


ONE = ("read the secret", "ok")
UNREAD = ("look at the projects and their own providers", "unknown", "GET /v1/project answered 403")


@pytest.mark.parametrize(
    "targets, verdict",
    [
        ([checked(ONE)], "Healthy"),
        ([checked(ONE, UNKNOWN)], "Healthy; 1 thing only a rotation can tell"),
        ([checked(ONE, UNKNOWN, UNKNOWN)], "Healthy; 2 things only a rotation can tell"),
        ([checked(ONE, UNREAD)], "Healthy; 1 thing in Braintrust could not be read"),
        ([checked(WARNING, UNKNOWN)], "Healthy; 1 warning; 1 thing only a rotation can tell"),
        ([checked(WARNING, WARNING)], "Healthy; 2 warnings"),
        ([checked(ONE, UNKNOWN, FAILED)], "1 problem: STS AssumeRole answered AccessDenied"),
        ([checked(ONE), checked(FAILED, name="eu")], "1 problem: eu: STS AssumeRole answered AccessDenied"),
        (
            [checked(FAILED, FAILED, FAILED), checked(FAILED, FAILED)],
            "5 problems: " + "prod: STS AssumeRole answered AccessDenied; " * 3 + "and 2 more",
        ),
    ],
)
def test_a_doctor_ends_with_a_verdict(targets, verdict):
    lines = doctor_lines(Page(80), *targets)
    assert " ".join(lines[lines.index("", 1) + 1 :]) == verdict


WRONG_LIST = {
    "class": "configuration",
    "service": "function",
    "call": "TARGETS_S3_URI",
    "problem": 's3://acme-rotator/targets.json: target "prod": region: found ""',
    "remedy": "Change the object in S3",
}


def test_a_list_that_cannot_be_used_is_shown_before_the_targets_with_what_to_do():
    answer, page = {"targets": [], "targets_error": WRONG_LIST}, Page(100)
    for lines in (
        answers.status(answer, past(), page, NOW, COMMAND),
        answers.doctor(answer, page),
        answers.report(answer, page, NOW, COMMAND),
    ):
        text = " ".join(line.strip() for line in lines)
        assert text.startswith("Problem: the newest list of targets can't be used")
        assert WRONG_LIST["problem"] in text and "Change the object in S3." in text
    assert "1 problem: the function TARGETS_S3_URI: s3://acme-rotator/targets.json" in answers.doctor(answer, page)[-2]


def test_of_many_targets_a_doctor_shows_only_those_with_a_problem_or_a_warning():
    many = [checked(ONE, UNKNOWN, name=f"ok-{number}") for number in range(98)]
    lines = doctor_lines(Page(80), *many, checked(FAILED, name="bad"), checked(WARNING, name="warned"))
    assert lines[:99] == [*(f"ok-{number}: ok" for number in range(98)), "bad"]
    assert "warned" in lines and lines[-1].startswith("1 problem: bad: ")


@pytest.mark.parametrize(
    "found, expected",
    [
        (
            done("rotated", credential_id="ASIA1", expires_at=later(3600)),
            ["prod: rotated, ASIA1, expires in 60 minutes"],
        ),
        (done("rolled_back", credential_id="AKIA1"), ["prod: rolled back, Braintrust now holds AKIA1"]),
        (
            done("rotated", retired=[{"credential_id": "AKIA0", "how": "deactivated"}]),
            ["prod: rotated", "  AKIA0 was deactivated."],
        ),
        (
            done("not_due", credential_id="AKIA1"),
            [
                "prod: not due, AKIA1",
                "  The credentials are current and not due yet. To rotate anyway:",
                "    make rotate STACK=rotator TARGETS=prod FORCE=true",
            ],
        ),
        (
            done("deferred", credential_id="AKIA1"),
            [
                "prod: deferred",
                "  Too little time was left for this target. To rotate it alone:",
                "    make rotate STACK=rotator TARGETS=prod",
            ],
        ),
        (
            done("failed", credential_id="AKIA1", error={**DENIED, "remedy": "Do this", "aws": {"request_id": "1-2"}}),
            ["prod: failed", "  STS AssumeRole answered AccessDenied (permission).", "  Do this.", "  Request ID: 1-2"],
        ),
    ],
)
def test_each_outcome_says_what_to_do_next(found, expected):
    assert report_lines(Page(80), found) == expected


def test_a_step_is_done():
    assert report_lines(Page(80), done("step_done", credential_id="AKIA1")) == ["prod: done, AKIA1"]


def test_what_secrets_manager_rotates_is_rotated_by_the_aws_cli_but_not_on_the_local_stack():
    left = {"targets": [done("left_to_secrets_manager", secret_id=SECRET)]}
    assert answers.report(left, Page(80), NOW, COMMAND)[-1].strip() == ROTATE_SECRET
    local = answers.report(left, Page(80), NOW, command_for(""))
    assert local[-1].strip() == "make run KIND=temporary TRIGGER=rotation"


def test_a_dry_run_says_that_nothing_has_changed():
    assert report_lines(Page(80), done("would_rotate"), dry_run=True)[-1] == "This was a dry run: nothing has changed."


@pytest.mark.parametrize(
    "seconds, text",
    [
        (1, "1 second"),
        (1.7, "1 second"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (3599, "60 minutes"),
        (7200, "2 hours"),
        (86_400 * 30, "30 days"),
    ],
)
def test_a_duration_is_shown_in_the_largest_unit_of_which_it_has_two(seconds, text):
    assert answers.duration(seconds) == text


@pytest.mark.parametrize(
    "is_terminal, columns, no_color, expected",
    [
        (False, "140", "", (80, False)),
        (True, "80", "", (80, True)),
        (True, "100", "1", (100, False)),
        (True, "300", "", (140, True)),
        (True, "20", "", (40, True)),
    ],
)
def test_the_page_is_the_terminal(monkeypatch, is_terminal, columns, no_color, expected):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal, raising=False)
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("NO_COLOR", no_color)
    page = terminal.page()
    assert (page.width, page.colors) == expected


@pytest.mark.parametrize("tool", ["answers.py", "goals.py", "page.py"])
def test_python_3_9_can_read_what_shows_the_answers(tool):
    assert ast.parse((ROOT / "tools" / tool).read_text(), feature_version=(3, 9)).body
