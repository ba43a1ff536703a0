"""The links, commands, names, and examples in the documents are right."""

import json
import re
import shlex
import subprocess
from functools import cache

import botocore.session
import jsonschema
import pytest
from samcli.yamlhelper import yaml_parse
from support import aws_commands
from support.documents import DOCUMENTS, PAGES, README, anchors, blocks, code_spans, commands, fences, links, name
from support.documents import prose, tables
from support.paths import ROOT
from support.sources import METRICS, PARAMETERS, TARGETS_SCHEMA, TEMPLATES

VALIDATOR = jsonschema.Draft202012Validator(TARGETS_SCHEMA)
of_each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=name)
# The changelog mentions what no longer exists, and a program writes the results of the benchmark.
CURRENT = [path for path in DOCUMENTS if path.name not in ("CHANGELOG.md", "RESULTS.md")]
of_each_current_document = pytest.mark.parametrize("path", CURRENT, ids=name)
of_each_page = pytest.mark.parametrize("path", PAGES, ids=name)


@of_each_document
def test_every_link_leads_to_a_file_and_a_heading_that_exist(path):
    for link in links(path):
        if link.startswith(("https://", "mailto:")):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_leads_to_every_page():
    linked = {(README.parent / link.partition("#")[0]).resolve() for link in links(README)}
    assert [name(path) for path in PAGES if path != README and path not in linked] == []


def test_the_readme_tells_the_templates_schedule():
    minutes = re.fullmatch(r"rate\((\d+) minutes\)", PARAMETERS["ScheduleExpression"]["Default"])[1]
    assert f"every {minutes} minutes" in README.read_text()


def test_the_readme_is_short():
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1_200


@of_each_current_document
def test_every_line_of_prose_fits_in_120_columns(path):
    lines = [line for line in prose(path).splitlines() if not line.startswith(("|", "!["))]
    assert [line for line in lines if len(line) > 120] == []


@of_each_document
def test_every_block_of_code_names_its_language(path):
    assert [text for language, text in fences(path) if not language] == []


@of_each_document
def test_no_document_names_a_folder_of_the_machine_on_which_it_was_written(path):
    assert re.findall(r"(?:/work|/home|/root|/tmp)/\S*", path.read_text()) == []


@of_each_current_document
def test_make_accepts_every_command(path):
    mistakes = [code for row in tables(path).get("Mistakes in a command", []) for code in code_spans(" ".join(row[:2]))]
    for command in sorted(set(commands(path, "make")) - set(mistakes)):
        arguments = shlex.split(command.replace("…", "x"), comments=True)
        result = subprocess.run([*arguments, "--dry-run"], cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr


@of_each_current_document
def test_the_aws_cli_accepts_every_command(path):
    found = {command: aws_commands.problems(command) for command in commands(path, "aws")}
    assert {command: problems for command, problems in found.items() if problems} == {}


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("aws secretmanager rotate-secret", "there is no service secretmanager"),
        ("aws secretsmanager rotate-secrets", "secretsmanager has no operation rotate-secrets"),
        ("aws secretsmanager rotate-secret --secret-id x --lambda-arn x", "rotate-secret has no option --lambda-arn"),
        ("aws secretsmanager rotate-secret --rotate-immediately", "rotate-secret needs the option --secret-id"),
        ("aws lambda invoke --function-name x --payload '{\"action\"}' /dev/stdout", 'not JSON: {"action"}'),
    ],
)
def test_a_wrong_command_of_the_aws_cli_is_noticed(command, problem):
    assert aws_commands.problems(command) == [problem]


@of_each_page
def test_deploy_py_has_every_option(path):
    options = set(re.findall(r"--[a-z-]+", "\n".join(commands(path, "python3 deploy.py"))))
    source = (ROOT / "deploy.py").read_text()
    assert [option for option in options if f'"{option}"' not in source] == []


@of_each_document
def test_every_block_of_json_parses(path):
    for text in blocks(path, "json"):
        json.loads(text)


def target_lists(path):
    """The examples of `TARGETS`."""
    values = [json.loads(text) for text in blocks(path, "json")]
    return [value for value in values if isinstance(value, list) and "kind" in value[0]]


@of_each_page
def test_the_schema_and_the_function_accept_every_list_of_targets(world, path):
    for targets in target_lists(path):
        VALIDATOR.validate(targets)
        result = world.new_function(*targets).invoke({"action": "status", "targets": ["no such target"]})
        assert result.body["errorType"] == "EventRefused", result.body


def test_there_are_examples_of_targets():
    assert sum(len(target_lists(path)) for path in PAGES) >= 4


def events(path):
    """The examples of events: in blocks, in the text, and in commands."""
    payloads = re.findall(r"(?:--payload '|\"Input\":\")(\{.*?\})['\"]", "\n".join(commands(path, "aws")))
    texts = [text for text in code_spans(prose(path)) + blocks(path, "json") if text.startswith("{")]
    texts += [text.replace('\\"', '"') for text in payloads]
    wrong = {code_spans(row[0])[0] for row in tables(path).get("Mistakes in an event", [])}
    for text in set(texts) - wrong:
        if {"action", "Step", "detail-type"} & set(json.loads(text) if '"action"' in text else {}):
            yield json.loads(text)


@of_each_page
def test_the_function_accepts_every_event(world, path):
    for event in events(path):
        names = event.get("targets", []) or ["prod-us"]
        function = world.new_function(*(world.target({"name": name}, name=name) for name in names))
        result = function.invoke(event)
        assert result.ok or result.body["errorType"] != "EventRefused", result.body


def test_there_are_examples_of_events():
    actions = {"rotate", "status", "check", "inventory", "rollback", "revoke"}
    assert {event["action"] for path in PAGES for event in events(path)} == actions


@cache
def known_names():
    """Every name in capitals and small letters that a page can mention as code."""
    examples = [yaml_parse(path.read_text()) for path in (ROOT / "docs/examples").glob("*.yaml")]
    parts = [template.get(part, {}) for template in TEMPLATES + examples for part in ("Parameters", "Resources", "Outputs")]
    names = {name for part in parts for name in part} | {"CodeBucket", "CodeKey"}  # only in a release's template
    for parameter in PARAMETERS.values():
        names.update(map(str, [parameter.get("Default"), *parameter.get("AllowedValues", [])]))
    session = botocore.session.get_session()
    for service in ("sts", "iam", "secretsmanager", "bedrock", "bedrock-runtime", "lambda", "kms", "sqs", "sns"):
        names.update(session.get_service_model(service).operation_names)
    definition_of_the_fleet = TEMPLATES[2]["Resources"]["Fleet"]["Properties"]["DefinitionString"]["Fn::Sub"]
    names.update(re.findall(r'"Error": "(\w+)"', definition_of_the_fleet))
    return names | set(METRICS) | {"FunctionName", "Target"}  # the metrics' dimensions


@of_each_page
def test_every_parameter_alarm_metric_and_operation_exists(path):
    mentioned = [code for code in code_spans(prose(path)) if re.fullmatch(r"[A-Z][a-z]+(?:[A-Z][a-z]*)+", code)]
    # Names from AWS that its models don't have as operations: a policy, a metric, fields, conditions, and an error.
    from_aws = {"AmazonBedrockMantleInferenceAccess", "DestinationDeliveryFailures", "EventAgeExceeded", "InputTemplate"}
    from_aws |= {"ReservedConcurrentExecutions", "RetriesExhausted", "TooManyRequestsException"}
    assert sorted(set(mentioned) - known_names() - from_aws) == []


@of_each_page
def test_every_line_of_a_configuration_file_is_a_parameter_with_a_value_that_it_accepts(path):
    lines = [line for text in blocks(path, "yaml") for line in text.splitlines()]
    for line in lines:
        found = re.fullmatch(r"([A-Z]\w+): (\S.*)", line)
        if found is None or found[1] in ("Region", "Tags", "Type", "Description"):
            continue
        parameter = PARAMETERS[found[1]]
        # CloudFormation drops spaces around the members of a list.
        is_list = parameter["Type"] == "CommaDelimitedList"
        values = re.split(r"\s*,\s*", found[2]) if is_list else [found[2]]
        for value in values:
            assert re.fullmatch(parameter.get("AllowedPattern", ".*"), value), line
            assert value in map(str, parameter.get("AllowedValues", [value])), line
