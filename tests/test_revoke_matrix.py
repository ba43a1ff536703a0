"""Disturbs a revocation at each of its calls, and runs it beside other runs.

Whatever happens, Braintrust never has credentials that don't work. After the next command that succeeds, the leaked
credentials are refused, and AWSCURRENT, Braintrust, and IAM agree.
"""

import itertools

import pytest
from support.faults import DropAfter, Kill
from support.http_messages import Reply
from support.interleaved_runs import REVOKED, ROLLED_BACK, SCHEDULED, STEPS, due_runs, runs_after_two_rotations
from support.kinds import KINDS
from support.revoked_run import ENDS_SESSIONS, leaked_runs
from support.side_by_side import side_by_side
from support.stopped_run import kill_function

CASES = "revocations disturbed"
# Runs of all kinds take the same paths, so only an access key's run is disturbed at each of its calls.
EVERY = {"access_key": 1, "temporary": 3, "long_term_api_key": 4, "short_term_api_key": 5}
BESIDE = [
    (REVOKED, SCHEDULED, runs_after_two_rotations),
    (SCHEDULED, REVOKED, runs_after_two_rotations),
    (REVOKED, ROLLED_BACK, runs_after_two_rotations),
    (ROLLED_BACK, REVOKED, runs_after_two_rotations),
    (REVOKED, REVOKED, runs_after_two_rotations),
    # The other run creates credentials and writes them.
    (SCHEDULED, REVOKED, due_runs),
    (STEPS, REVOKED, due_runs),
    (REVOKED, SCHEDULED, due_runs),
]
HELD_EVERY = {"access_key": 3, "temporary": 8, "long_term_api_key": 8, "short_term_api_key": 10}


def disturbance(name, run):
    return {
        "killed before": Kill(lambda: kill_function(run.function), acts=False),
        "killed after": Kill(lambda: kill_function(run.function), acts=True),
        "answer lost": DropAfter(),
        "refused": Reply(403),
    }[name]


def calls_of(world, kind):
    """The calls of a revocation that nothing disturbs."""
    [run] = leaked_runs(world, kind, 1)
    run.start()
    assert run.run(), run.function.logs()
    return run.calls()


@pytest.mark.parametrize("with_scheduled_runs", [False, True])
@pytest.mark.parametrize("name", ["killed before", "killed after", "answer lost", "refused"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_revocation_survives_being(world, kind, name, with_scheduled_runs, record_property):
    with world.execution_policy(allow=ENDS_SESSIONS):
        calls = calls_of(world, kind)
        # The two ways to recover take turns at the positions of a kind.
        positions = range(int(with_scheduled_runs) * EVERY[kind], len(calls), 2 * EVERY[kind])

        def check(run, position):
            run.start()
            seen = itertools.count()
            run.interceptor.fail(lambda request: next(seen) == position, disturbance(name, run))
            run.run()
            run.recover(with_scheduled_runs)
            return [f"{name} call {position} ({calls[position]}): {wrong}" for wrong in run.wrong]

        side_by_side(check, leaked_runs(world, kind, len(positions)), positions)
    record_property(CASES, len(positions))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("first", "second", "new_runs"), BESIDE)
def test_a_revocation_beside_another_run_ends_in_agreement(world, first, second, new_runs, kind, record_property):
    [runs] = new_runs(world, kind, first, second, 1)
    runs.begin()
    runs.first.run()
    calls = [request.call for request in runs.first.interceptor.requests]
    runs.first.stop()
    runs.second.stop()
    positions = range(0, len(calls), HELD_EVERY[kind])

    def check(runs, position):
        leaked = world.braintrust.credentials(runs.ai_secret)
        runs.begin()
        runs.hold_first(position)
        runs.recover()
        if "user_name" in runs.target and world.works(leaked):
            runs.wrong.append("the leaked credentials still work")
        where = f"{first} held before call {position} ({calls[position]}), {second} beside it"
        return [f"{where}: {wrong}" for wrong in runs.wrong]

    side_by_side(check, new_runs(world, kind, first, second, len(positions)), positions)
    record_property(CASES, len(positions))
