"""Measures a run in a new environment: the function's start and its first rotation, with the services at a distance.

Lambda ends an environment that has been idle for some minutes. So with the template's schedule, most runs need a new
one.
"""

import statistics
from dataclasses import dataclass

import functions
from round_trips import sequence
from support.emulated_function import EmulatedFunction
from table import Row

MILLISECONDS = (0, 10, 50)  # the round-trip times
FARTHEST = MILLISECONDS[-1]
RUNS = 7  # of each function, at each distance
FEWEST = 5  # round trips that follow one another; docs/benchmarks.md derives it


@dataclass(frozen=True)
class FirstRun:
    milliseconds: float
    # What was under way in each round trip.
    rounds: list[list[str]]


def named(milliseconds, cpu=""):
    return f"new environment, {milliseconds} ms away{cpu}"


def first_runs(distance, milliseconds, subjects, bootstrap_of=functions.own_bootstrap):
    """The median and the sequence of round trips of each function. The functions take turns, as for cold starts."""
    distance.round_trip = milliseconds / 1000
    columns = zip(*[[_first_run(distance, it, bootstrap_of(it)) for it in subjects] for _ in range(RUNS)])
    return [_median(list(column)) for column in columns]


def row(milliseconds, runs, cpu=""):
    nothing, ours, by_hand = runs
    remark, limit = "", FEWEST * milliseconds
    if limit:
        fewest = f"{len(ours.rounds)} round trips in sequence (at least {FEWEST})"
        remark = f"{fewest}; {ours.milliseconds / limit:.2f} times their {limit} ms; Python: {len(by_hand.rounds)}"
    figures = (run.milliseconds for run in (ours, by_hand, nothing))
    return Row(named(milliseconds, cpu), "ms", *figures, remark)


def _first_run(distance, subject, bootstrap):
    distance.crossings.clear()
    with EmulatedFunction(bootstrap, subject.environment) as function:
        result = functions.rotate(function)
        return FirstRun(result.seconds * 1000, sequence(list(distance.crossings)))


def _median(runs):
    usual = statistics.median_low(len(run.rounds) for run in runs)
    [rounds, *_] = [run.rounds for run in runs if len(run.rounds) == usual]
    return FirstRun(statistics.median(run.milliseconds for run in runs), rounds)
