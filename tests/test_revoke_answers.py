"""What `make revoke` shows, and when it asks."""

import sys
from datetime import datetime, timezone

import pytest
from support.paths import ROOT

sys.path.append(str(ROOT / "tools"))
import revoke  # noqa: E402
from goals import command_for  # noqa: E402
from page import Page  # noqa: E402

NOW = datetime(2026, 1, 10, tzinfo=timezone.utc)
COMMAND = "aws iam put-role-policy --role-name bedrock --policy-name AWSRevokeOlderSessions --policy-document '{}'"
EVIDENCE = {
    "service": "bedrock",
    "call": "ListFoundationModels",
    "answer": "403 UnrecognizedClientException",
    "at": "2026-01-10T00:00:00Z",
}


def answer(outcome="revoked", **revocation):
    entry = {"credential_id": "AKIAOLD", "state": "dead", "evidence": EVIDENCE}
    target = {"name": "prod", "outcome": outcome, "kind": "access_key", "duration_ms": 5}
    return {"dry_run": False, "targets": [target | {"revocation": {"revoked": [entry], **revocation}}]}


def rendered(found):
    return "\n".join(revoke.render(found, Page(200), NOW, command_for("rotator")))


def test_the_evidence_names_the_answer_that_refused_the_credentials():
    text = rendered(answer()).replace("\n    ", " ")
    assert "AKIAOLD is dead: Bedrock answered 403 UnrecognizedClientException" in text
    assert "2026-01-10T00:00:00Z" in text


def test_the_end_of_a_dry_run_says_that_nothing_has_changed():
    text = rendered(answer() | {"dry_run": True})
    assert text.endswith("\nThis was a dry run: nothing has changed.") and text.count("dry run") == 1


def test_what_is_left_to_do_is_a_command_on_a_line_of_its_own():
    text = rendered(answer("replaced", remaining=[{"what": "End the sessions", "command": COMMAND}]))
    assert COMMAND in text.splitlines()


def test_foreign_keys_are_named():
    assert "AKIAHAND" in rendered(answer(foreign_keys=["AKIAHAND"]))


@pytest.mark.parametrize(("typed", "confirms"), [("yes", True), ("a, b", True), ("a", False), ("", False), ("y", False)])
def test_only_yes_or_the_names_of_the_targets_confirm(typed, confirms):
    assert revoke.is_confirmed(["a", "b"], typed) == confirms


def test_only_yes_confirms_where_no_target_is_named():
    assert revoke.is_confirmed([], "yes") and not revoke.is_confirmed([], "")


def sent(monkeypatch, fields, outcome="revoked", typed="yes", is_terminal=True):
    events = []

    def invoke(fields):
        events.append(fields)
        return answer(outcome), False

    monkeypatch.setattr("builtins.input", lambda question: typed)
    monkeypatch.setattr("sys.stdin.isatty", lambda: is_terminal, raising=False)
    try:
        ok = revoke.run(invoke, lambda answer: None, ["prod"], fields)
    except SystemExit:
        ok = False
    return events, ok


def test_a_revocation_asks_after_its_dry_run(monkeypatch):
    assert sent(monkeypatch, ["force"]) == ([["force", "dry_run"], ["force"]], True)
    assert sent(monkeypatch, [], typed="no") == ([["dry_run"]], False)
    assert sent(monkeypatch, [], is_terminal=False) == ([["dry_run"]], False)


def test_yes_and_a_dry_run_ask_nothing(monkeypatch):
    assert sent(monkeypatch, ["yes", "api_key"], is_terminal=False) == ([["api_key"]], True)
    assert sent(monkeypatch, ["dry_run"], is_terminal=False) == ([["dry_run"]], True)


def test_credentials_that_still_work_make_the_command_fail(monkeypatch):
    assert sent(monkeypatch, ["yes"], outcome="replaced")[1] is False


@pytest.mark.parametrize(("left_out", "done"), [({"replaced": 1}, False), ({"revoked": 9}, True)])
def test_credentials_that_still_work_make_the_command_fail_even_if_the_answer_had_no_room_for_them(left_out, done):
    assert revoke.is_done({**answer("revoked"), "left_out": left_out}, failed=False) is done
