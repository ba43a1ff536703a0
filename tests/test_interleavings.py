"""Holds one or two runs of a target before their calls while the other run continues.

Lambda delivers events at least once, several schedules and Secrets Manager's steps may coincide, and an operator may
roll back meanwhile. `support/interleaved_runs.py` says what must be true at every moment and at the end.
"""

import itertools

import pytest
from support.end_to_end import END_TO_END
from support.interleaved_runs import (
    FORCED_RUN,
    ROLLED_BACK,
    SAME_EVENT,
    SCHEDULED,
    STEPS,
    TURNED_ON,
    due_runs,
    due_runs_in_projects,
    first_runs,
    runs_after_two_rotations,
)
from support.kinds import KINDS
from support.side_by_side import side_by_side

CASES = "interleavings"
BESIDE = {
    SCHEDULED: [SCHEDULED, SAME_EVENT, FORCED_RUN, STEPS, TURNED_ON, ROLLED_BACK],
    FORCED_RUN: [SCHEDULED, FORCED_RUN, STEPS, TURNED_ON, ROLLED_BACK],
    STEPS: [SCHEDULED, FORCED_RUN, STEPS, ROLLED_BACK],
    ROLLED_BACK: [SCHEDULED, FORCED_RUN, STEPS, TURNED_ON, ROLLED_BACK],
}
PAIRS = [(first, second) for first, seconds in BESIDE.items() for second in seconds]
INTERLEAVED = [
    (first, second, new_runs)
    for first, second in PAIRS
    for new_runs in ([runs_after_two_rotations] if ROLLED_BACK in (first, second) else [due_runs, first_runs])
]
IN_PROJECTS = [(SCHEDULED, FORCED_RUN), (FORCED_RUN, STEPS)]
# Runs of all kinds take the same paths, and only those of user-based kinds deactivate or delete keys. So an access
# key's run is held before each of its calls, and the other kinds' runs before some of theirs.
EVERY = {"access_key": 1, "temporary": 3, "long_term_api_key": 3, "short_term_api_key": 4}
BOTH_HELD = {"access_key": 4, "temporary": 3, "long_term_api_key": 3, "short_term_api_key": 3}
# The fractional parts of this number's multiples are spread evenly.
GOLDEN = 0.618
KNOWN_CALLS = {}


def calls_of(world, kind, does, beside, new_runs):
    """The calls of a run that nothing disturbs."""
    key = kind, does, STEPS in (does, beside), new_runs, world.end_to_end is None
    if key not in KNOWN_CALLS:
        [runs] = new_runs(world, kind, does, beside, 1)
        runs.begin()
        runs.first.run()
        KNOWN_CALLS[key] = [request.call for request in runs.first.interceptor.requests]
        runs.first.stop()
        runs.second.stop()
    return KNOWN_CALLS[key]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("first", "second", "new_runs"), INTERLEAVED)
def test_a_run_may_be_overtaken_by_another(world, first, second, new_runs, kind, record_property):
    overtake(world, first, second, new_runs, kind, record_property)


@pytest.mark.parametrize("kind", ["temporary", "access_key"])
@pytest.mark.parametrize(("first", "second"), IN_PROJECTS)
def test_a_run_that_writes_into_a_project_may_be_overtaken_by_another(world, first, second, kind, record_property):
    overtake(world, first, second, due_runs_in_projects, kind, record_property)


@pytest.mark.parametrize(
    ("first", "second", "new_runs"),
    [(SCHEDULED, FORCED_RUN, due_runs), (FORCED_RUN, ROLLED_BACK, runs_after_two_rotations)],
)
def test_a_run_that_is_proven_through_braintrust_may_be_overtaken(world, first, second, new_runs, record_property):
    world.end_to_end = END_TO_END
    overtake(world, first, second, new_runs, "temporary", record_property)


def overtake(world, first, second, new_runs, kind, record_property):
    calls = calls_of(world, kind, first, second, new_runs)
    positions = range(0, len(calls), EVERY[kind])

    def check(runs, position):
        runs.begin()
        runs.hold_first(position)
        runs.recover()
        where = f"{first} held before call {position} ({calls[position]}), {second} beside it"
        return [f"{where}: {wrong}" for wrong in runs.wrong]

    side_by_side(check, new_runs(world, kind, first, second, len(positions)), positions)
    record_property(CASES, len(positions))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("first", "second", "new_runs"), INTERLEAVED)
def test_two_runs_may_be_held_at_once(world, first, second, new_runs, kind, record_property):
    calls = calls_of(world, kind, first, second, new_runs)
    others = calls_of(world, kind, second, first, new_runs)
    number = BOTH_HELD[kind]
    # Pairs of positions that are spread evenly over all of them.
    positions = [(n * len(calls) // number, int((n + 1) * GOLDEN % 1 * len(others))) for n in range(number)]

    def check(runs, held):
        runs.begin()
        runs.hold_both(*held)
        runs.recover()
        where = f"{first} held before call {held[0]} ({calls[held[0]]}), {second} before {held[1]} ({others[held[1]]})"
        return [f"{where}: {wrong}" for wrong in runs.wrong]

    side_by_side(check, new_runs(world, kind, first, second, len(positions)), positions)
    record_property(CASES, len(positions))
