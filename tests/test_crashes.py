"""Stops the function before and after every call of a rotation, the first one included, and of a rollback.

Credentials are never lost. After each stop and each run, the credentials in Braintrust work. At the end AWSCURRENT,
Braintrust and IAM agree, there are no keys that nothing names, there were never more than two keys, and the current key
was never deactivated.
"""

import pytest
from support.end_to_end import END_TO_END
from support.events import scheduled_run
from support.kinds import KINDS, USER_BASED
from support.side_by_side import side_by_side
from support.watched_run import LONGER_THAN_ANY_RUN
from support.stopped_run import (
    STOPS,
    due_rollbacks,
    due_rotations,
    due_rotations_in_projects,
    first_rotations,
    placeholder_rotations,
)

CASES = "rotations stopped"
STOPPED = [(new_rotations, stop) for new_rotations in (due_rotations, first_rotations) for stop in STOPS]
STOPPED.append((placeholder_rotations, "killed after"))


def calls_of_rotation(world, kind, trigger, new_rotations):
    """The calls of a rotation that nothing disturbs."""
    [rotation] = new_rotations(world, kind, trigger, 1)
    rotation.begin_rotation()
    rotation.start()
    assert rotation.run(), rotation.function.logs()
    return rotation.calls()


def stop_rotation(rotation, stop, position):
    rotation.begin_rotation()
    rotation.start()
    rotation.stop_at(stop, position)
    rotation.run()
    rotation.check_braintrust("after the stop")
    # Secrets Manager retries the whole rotation, and Lambda retries an event that failed.
    for retry in range(3):
        if rotation.run():
            break
        rotation.check_braintrust(f"after retry {retry + 1}")
    else:
        rotation.wrong.append("three retries failed")
    rotation.check_braintrust("at the end")
    rotation.cancel_rotation()
    if rotation.kind in USER_BASED:
        # Nothing is due in these two: one deactivates the unneeded keys, and the next deletes them.
        for _ in range(2):
            assert rotation.invoke(scheduled_run()).ok, rotation.function.logs()[-2:]
    rotation.check_the_end()
    rotation.stop()
    return rotation.wrong


@pytest.mark.parametrize("trigger", ["schedule", "rotation"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("new_rotations", "stop"), STOPPED)
def test_a_rotation_survives_being(world, new_rotations, kind, trigger, stop, record_property):
    stop_at_every_call(world, new_rotations, kind, trigger, stop, record_property)


# The steps are the same as for an ai_secret, so one kind with and one without an IAM user are enough.
@pytest.mark.parametrize(("kind", "trigger"), [("temporary", "schedule"), ("access_key", "rotation")])
@pytest.mark.parametrize("stop", STOPS)
def test_a_rotation_into_a_project_survives_being(world, kind, trigger, stop, record_property):
    stop_at_every_call(world, due_rotations_in_projects, kind, trigger, stop, record_property)
@pytest.mark.parametrize("stop", STOPS)
def test_a_rotation_that_is_proven_through_braintrust_survives_being(world, stop, record_property):
    world.end_to_end = END_TO_END
    stop_at_every_call(world, due_rotations, "temporary", "schedule", stop, record_property)


def stop_at_every_call(world, new_rotations, kind, trigger, stop, record_property):
    calls = calls_of_rotation(world, kind, trigger, new_rotations)

    def check(rotation, position):
        return [
            f"{stop} call {position} ({calls[position]}): {wrong}" for wrong in stop_rotation(rotation, stop, position)
        ]

    side_by_side(check, new_rotations(world, kind, trigger, len(calls)), range(len(calls)))
    record_property(CASES, len(calls))


def calls_of_rollback(world, kind):
    """The calls of a rollback that nothing disturbs."""
    [rollback] = due_rollbacks(world, kind, 1)
    rollback.start()
    assert rollback.run(), rollback.function.logs()
    return rollback.calls()


def stop_rollback(rollback, stop, position, is_repeated):
    rollback.start()
    rollback.stop_at(stop, position)
    rollback.run()
    rollback.check_braintrust("after the stop")
    if is_repeated:
        rollback.run()  # refused if the first one succeeded
        rollback.check_braintrust("after the repetition")
    # The label that a killed run left counts as another run's until no run of that time can be under way.
    rollback.world.let_time_pass(rollback.target, LONGER_THAN_ANY_RUN)
    for run in range(4):
        ok = rollback.invoke(scheduled_run()).ok
        rollback.check_braintrust(f"after scheduled run {run + 1}")
    if not ok:
        rollback.wrong.append(f"the last scheduled run failed: {rollback.function.logs()[-2:]}")
    rollback.check_the_end()
    rollback.stop()
    return rollback.wrong


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("is_repeated", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_rollback_survives_being(world, kind, is_repeated, stop, record_property):
    calls = calls_of_rollback(world, kind)

    def check(rollback, position):
        wrong = stop_rollback(rollback, stop, position, is_repeated)
        return [f"{stop} call {position} ({calls[position]}): {line}" for line in wrong]

    side_by_side(check, due_rollbacks(world, kind, len(calls)), range(len(calls)))
    record_property(CASES, len(calls))
