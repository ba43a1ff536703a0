"""The tables in the documents are complete, and their figures are right."""

import re
import subprocess
import sys

import pytest
from support.documents import code_spans, tables
from support.paths import ROOT
from support.sources import METRICS, PARAMETERS, TARGETS_SCHEMA, TEMPLATES, variables, variants


def test_the_page_of_parameters_is_up_to_date():
    program = "import parameters_page; print(parameters_page.page(), end='')"
    command = [sys.executable, "-c", program]
    page = subprocess.run(command, cwd=ROOT / "tools", capture_output=True, text=True, check=True).stdout
    assert (ROOT / "docs/parameters.md").read_text() == page, "make docs writes it"


def test_the_page_of_parameters_has_every_parameter():
    listed = [code_spans(row[0])[0] for rows in tables(ROOT / "docs/parameters.md").values() for row in rows]
    assert sorted(listed) == sorted(name for template in TEMPLATES for name in template["Parameters"])


def first_column(page, heading):
    return [code for row in tables(ROOT / "docs" / page)[heading] for code in code_spans(row[0])]


def test_the_page_of_the_configuration_has_every_field():
    fields = TARGETS_SCHEMA["items"]["properties"]
    assert sorted(first_column("configuration.md", "Fields of a target")) == sorted(fields)
    entry = fields["ai_secrets"]["items"]["properties"]
    assert sorted(first_column("configuration.md", "Fields of an entry of `ai_secrets`")) == sorted(entry)


def test_the_page_of_the_configuration_has_every_variable():
    listed = first_column("configuration.md", "Environment variables")
    # The function reads none of these itself: Lambda and the SDK do.
    others = {"AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT", "AWS_LAMBDA_LOG_LEVEL", "AWS_LAMBDA_LOG_FORMAT"}
    assert sorted(listed) == sorted(variables() | others)


@pytest.mark.parametrize(
    ("page", "heading", "file", "enum"),
    [
        ("troubleshooting.md", "Classes of errors", "src/error.rs", "ErrorClass"),
        ("report.md", "Outcomes", "src/report.rs", "Outcome"),
        ("operate.md", "Status", "src/rotation/verdict.rs", "State"),
    ],
)
def test_a_table_of_values_is_complete(page, heading, file, enum):
    assert sorted(first_column(page, heading)) == variants(file, enum)


def test_the_table_of_kinds_is_complete():
    rows = tables(ROOT / "docs/kinds.md")["Kinds of credentials"]
    assert sorted(code_spans(row[0])[0] for row in rows) == sorted(PARAMETERS["Kind"]["AllowedValues"])


def test_the_table_of_metrics_is_complete():
    assert sorted(first_column("report.md", "Metrics")) == METRICS


def costs(heading):
    """The rows of a table of costs, by their first column, with numbers."""
    rows = tables(ROOT / "docs/cost.md")[heading]
    return {row[0]: [float(cell.removeprefix("$")) for cell in row[1:]] for row in rows}


def test_the_costs_count_the_runs_of_the_templates_schedule():
    minutes = int(re.fullmatch(r"rate\((\d+) minutes\)", PARAMETERS["ScheduleExpression"]["Default"])[1])
    # AWS counts a month as 730 hours.
    assert f"{730 * 60 // minutes:,} scheduled runs" in (ROOT / "docs/cost.md").read_text()


def test_the_costs_add_up():
    prices = [price for [price] in costs("Prices").values()][:3]
    for what, (*numbers, total) in costs("What it costs").items():
        assert total == pytest.approx(sum(number * price for number, price in zip(numbers, prices, strict=True))), what
        # Each target has its metrics, and the function has them once more, over all its targets.
        targets = 0 if "`MetricsPerTarget: false`" in what else {"one": 1, "ten": 10}[what.split()[0]]
        assert numbers[1] == len(METRICS) * (targets + 1)


@pytest.mark.parametrize(
    ("what", "parameters"),
    [("one target, `temporary`", {}), ("one target with a staged secret", {"StageCredentials": "true"})],
)
def test_a_stack_has_the_secrets_and_alarms_that_the_costs_count(world, deployed, what, parameters):
    outputs = deployed(world.new_ai_secret(), **parameters)
    stack = outputs["DashboardName"].removesuffix("-us-east-1")
    pages = world.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=stack)
    types = [resource["ResourceType"] for page in pages for resource in page["StackResourceSummaries"]]
    counted = [types.count("AWS::SecretsManager::Secret"), types.count("AWS::CloudWatch::Alarm")]
    secrets, _, alarms, _ = costs("What it costs")[what]
    assert counted == [secrets, alarms]


def test_every_figure_of_the_benchmark_was_measured():
    measured = {row[0]: row[1:] for rows in tables(ROOT / "bench/RESULTS.md").values() for row in rows}
    # The page has the columns in another order, and its second table has the first of them only.
    columns = [1, 2, 0]
    for what, *figures in tables(ROOT / "docs/benchmarks.md")["Benchmarks"]:
        assert figures == [measured[what][column] for column in columns[: len(figures)]], what
