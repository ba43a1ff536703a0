"""The figures in docs/fleet.md follow from its prices, its measurements, and its formulas."""

import math
import re

import pytest
from support.documents import tables
from support.paths import ROOT
from support.sources import TEMPLATES

PAGE = ROOT / "docs/fleet.md"
FLEET = TEMPLATES[2]["Parameters"]
ROWS = tables(PAGE)["Which set-up"]
RUNS = 2_190  # a month
BATCH, AT_ONCE = FLEET["BatchSize"]["Default"], FLEET["Concurrency"]["Default"]
ALARMS, ALARMS_OF_A_FLEET = 6, 2
STATES_OF_A_RUN = 5


def number(text):
    return float(re.search(r"[\d,]+(?:\.\d+)?", text)[0].replace(",", ""))


def price(item):
    [row] = [row for row in tables(PAGE)["Prices"] if row[0] == item]
    return number(row[1])


def measured():
    """The seconds of an invocation, as a fixed part and a part for each target, and the bytes of the log."""
    (few, seconds_of_few, _), (many, seconds_of_many, logged) = [
        [number(cell) for cell in row] for row in tables(PAGE)["Measurements"]
    ]
    each = (seconds_of_many - seconds_of_few) / (many - few)
    return seconds_of_few - few * each, each, logged


def batches(targets):
    return 1 if targets <= 300 else math.ceil(targets / BATCH)


def seconds(targets):
    """The seconds of one invocation."""
    fixed, each, _ = measured()
    return fixed + each * targets / batches(targets)


def metrics(count):
    first, others = price("each of the first 10,000 metrics"), price("each of the next 240,000 metrics")
    return min(count, 10_000) * first + max(0, count - 10_000) * others


def month(targets, of_metrics):
    is_fleet, count = batches(targets) > 1, batches(targets)
    invocations = RUNS * count
    return sum(
        [
            invocations * seconds(targets) * 0.125 * price("Lambda, a GB-second"),
            invocations / 1e6 * price("Lambda, a million invocations"),
            RUNS * (STATES_OF_A_RUN + 2 * count) / 1_000 * price("Step Functions, 1,000 transitions") if is_fleet else 0,
            RUNS * targets * measured()[2] / 1e9 * price("a GB of logs"),
            metrics(of_metrics),
            (ALARMS + (ALARMS_OF_A_FLEET if is_fleet else 0)) * price("an alarm"),
            price("a secret"),
            invocations / 10_000 * price("10,000 calls of Secrets Manager"),
            RUNS * (count + is_fleet) / 1_000 * price("1,000 reads of S3") if targets > 10 else 0,
        ]
    )


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_months_price_follows_from_the_formulas(row):
    targets = int(number(row[0]))
    expected = month(targets, 5 * targets + 5), month(targets, 5)
    assert [row[4], row[5]] == [f"${value:,.2f}" for value in expected]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_times_follow_from_the_measurements(row):
    targets, count = int(number(row[0])), batches(int(number(row[0])))
    in_turn = math.ceil(count / AT_ONCE) if count > 1 else 1
    assert number(row[2]) == pytest.approx(in_turn * seconds(targets), abs=0.06)
    assert number(row[3]) == pytest.approx(count * seconds(targets), abs=0.06)


def test_a_batch_is_repeated_only_after_the_longest_timeout_that_the_rotator_can_have():
    assert FLEET["FunctionTimeoutSeconds"]["Default"] == TEMPLATES[0]["Parameters"]["TimeoutSeconds"]["MaxValue"]


def test_the_set_ups_have_the_default_batches():
    assert f"{batches(3_000)} batches of {BATCH}, {AT_ONCE} at once" in ROWS[2][1]
    assert f"{batches(30_000)} batches of {BATCH}, {AT_ONCE} at once" in ROWS[3][1]


@pytest.mark.parametrize("alarm", ["FleetFailedAlarm", "FleetTimedOutAlarm"])
def test_an_alarm_has_a_section_with_its_first_command(alarm):
    description = TEMPLATES[2]["Resources"][alarm]["Properties"]["AlarmDescription"]["Fn::Sub"]
    command = description.splitlines()[2].replace("${Fleet}", "<StateMachineArn>").replace("${AWS::Region}", "<region>")
    section = re.search(rf"^### {alarm}\n(.*?)(?=^##|\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE)[1]
    assert command in section
    assert section.index("**Impact:**") < section.index("**Run this:**") < section.index("**Then:**")
