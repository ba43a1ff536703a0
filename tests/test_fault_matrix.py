"""Every fault at every call of a rotation: the run ends in time, loses nothing, shows no secret, and recovers."""

from collections import Counter

import pytest
from support.disturbed_run import due_runs, due_runs_in_projects, first_runs, placeholder_runs
from support.end_to_end import COMPLETION, END_TO_END
from support.faults import Delay, DropAfter, DropBefore, Endless, Relabel, Reset, Truncate
from support.http_messages import Reply
from support.kinds import KINDS
from support.secret_forms import echo
from support.side_by_side import AT_ONCE, side_by_side

CASES = "faults at calls"
ROTATIONS = [("temporary", "memory"), *[(kind, "schedule") for kind in KINDS]]
HTML = {"body": "<html><body>Sign in to your proxy</body></html>", "content_type": "text/html"}
ONCE = {
    "an answer after the attempt": Delay(10.5),
    "an answer after the deadline": Delay(6),
    "a connection dropped before": DropBefore(),
    "a connection dropped after": DropAfter(),
    "a reset before": Reset(acts=False),
    "a reset after": Reset(acts=True),
    "a truncated answer": Truncate(),
    "an endless answer": Endless(),
    "an empty answer": Reply(200),
    "another content type": Relabel("text/plain"),
    "HTML": Reply(200, **HTML),
    "HTML with 502": Reply(502, **HTML),
    "429": Reply(429, echo, {"retry-after": "1", "x-amzn-errortype": "ThrottlingException"}),
    "500": Reply(500, echo),
    "503": Reply(503, echo),
}
FEW = ["a connection dropped before", "a reset after", "a truncated answer", "an empty answer", "500"]
PERSISTENT = ["a reset after", "HTML", "503"]
PERSISTENT_IN = [
    ("temporary", "memory"),
    ("temporary", "rotation"),
    ("access_key", "schedule"),
    ("access_key", "rotation"),
]
FIRST = [(first_runs, "a reset after"), (first_runs, "500"), (placeholder_runs, "a reset after")]
UNTRUSTED = {
    "AWS_ENDPOINT_URL_STS": "short_term_api_key",
    "AWS_ENDPOINT_URL_IAM": "access_key",
    "AWS_ENDPOINT_URL_SECRETS_MANAGER": "access_key",
    "AWS_ENDPOINT_URL_BEDROCK": "long_term_api_key",
    "BRAINTRUST_API_URL": "long_term_api_key",
}
TIMEOUT = 20
# For faults that last longer than any timeout.
SHORT_TIMEOUT = 6
# For delays, whose runs all wait at once: on a busy machine, a run needs longer until its last call.
LONG_TIMEOUT = 60
KNOWN_CALLS = {}


def calls_of(world, kind, trigger, new_runs=due_runs):
    """How often a rotation makes each call when nothing disturbs it."""
    if (kind, trigger, new_runs) not in KNOWN_CALLS:
        [run] = new_runs(world, kind, trigger, 1)
        run.begin(TIMEOUT)
        assert run.run(), run.function.logs()
        KNOWN_CALLS[kind, trigger, new_runs] = Counter(run.calls())
    return KNOWN_CALLS[kind, trigger, new_runs]


def positions_of(world, kind, trigger, new_runs=due_runs):
    return [(call, n) for call, number in calls_of(world, kind, trigger, new_runs).items() for n in range(number)]


def go_through(world, kind, trigger, positions, fault, times, new_runs=due_runs):
    def check(run, position):
        call, skip = position
        if times is None or fault == ONCE["an answer after the deadline"]:
            run.begin(SHORT_TIMEOUT)
        else:
            run.begin(LONG_TIMEOUT if isinstance(fault, Delay) else TIMEOUT)
        run.disturb(call, fault, times, skip)
        if isinstance(fault, Delay):
            run.wait_for_late_calls()
        run.check("after the fault")
        run.recover()
        run.stop()
        run.check_what_is_shown()
        return [f"{call} ({skip}): {wrong}" for wrong in run.wrong]

    # Runs with a long delay only wait, so all of them run at once.
    at_once = len(positions) if fault == ONCE["an answer after the attempt"] else AT_ONCE
    side_by_side(check, new_runs(world, kind, trigger, len(positions)), positions, at_once=at_once)


@pytest.mark.parametrize(("kind", "trigger"), ROTATIONS)
@pytest.mark.parametrize("fault", ONCE)
def test_a_rotation_survives_at_any_call(world, fault, kind, trigger, record_property):
    positions = positions_of(world, kind, trigger)
    go_through(world, kind, trigger, positions, ONCE[fault], 1)
    record_property(CASES, len(positions))


@pytest.mark.parametrize("fault", ONCE)
def test_the_proof_through_braintrust_survives(world, fault, record_property):
    world.end_to_end = END_TO_END
    go_through(world, "temporary", "schedule", [(COMPLETION, 0)], ONCE[fault], 1)
    record_property(CASES, 1)


@pytest.mark.parametrize("fault", PERSISTENT)
def test_the_proof_through_braintrust_survives_for_good(world, fault, record_property):
    world.end_to_end = END_TO_END
    go_through(world, "temporary", "rotation", [(COMPLETION, 0)], ONCE[fault], None)
    record_property(CASES, 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", FEW)
def test_a_rotation_by_secrets_manager_survives_at_any_call(world, fault, kind, record_property):
    positions = positions_of(world, kind, "rotation")
    go_through(world, kind, "rotation", positions, ONCE[fault], 1)
    record_property(CASES, len(positions))


@pytest.mark.parametrize(("kind", "trigger"), [("temporary", "memory"), ("access_key", "schedule")])
@pytest.mark.parametrize("fault", FEW)
def test_a_rotation_into_a_project_survives_at_any_call(world, fault, kind, trigger, record_property):
    positions = positions_of(world, kind, trigger, due_runs_in_projects)
    go_through(world, kind, trigger, positions, ONCE[fault], 1, due_runs_in_projects)
    record_property(CASES, len(positions))


@pytest.mark.parametrize("trigger", ["schedule", "rotation"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("new_runs", "fault"), FIRST)
def test_a_first_rotation_survives_at_any_call(world, fault, kind, trigger, new_runs, record_property):
    positions = positions_of(world, kind, trigger, new_runs)
    go_through(world, kind, trigger, positions, ONCE[fault], 1, new_runs)
    record_property(CASES, len(positions))


@pytest.mark.parametrize(("kind", "trigger"), PERSISTENT_IN)
@pytest.mark.parametrize("fault", PERSISTENT)
def test_a_rotation_survives_for_good_at_any_call(world, fault, kind, trigger, record_property):
    positions = [(call, 0) for call in calls_of(world, kind, trigger)]
    go_through(world, kind, trigger, positions, ONCE[fault], None)
    record_property(CASES, len(positions))


@pytest.mark.parametrize("service", UNTRUSTED)
def test_a_rotation_survives_an_untrusted_certificate(world, private, service, record_property):
    [run] = due_runs(world, UNTRUSTED[service], "schedule", 1)
    run.begin(SHORT_TIMEOUT, **{service: private[0].url})
    assert not run.run() and private[0].requests == []
    run.check("after the fault")
    run.function.stop()
    run.start(TIMEOUT)
    run.recover()
    run.stop()
    run.check_what_is_shown()
    record_property(CASES, 1)
    assert not run.wrong
