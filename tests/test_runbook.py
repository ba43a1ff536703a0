"""docs/runbook.md and the descriptions of the alarms say the same, and their commands work."""

import json
import os
import re
import shlex
import shutil
import subprocess

import pytest
from samcli.yamlhelper import yaml_parse
from support.deployed_alarms import alarms_of
from support.deployed_function import SCHEDULED_EVENT, rotate_deployed
from support.paths import ROOT

RUNBOOK = (ROOT / "docs/runbook.md").read_text()
RESOURCES = yaml_parse((ROOT / "template.yaml").read_text())["Resources"]
ALARMS = {
    name: resource["Properties"]["AlarmDescription"]["Fn::Sub"]
    for name, resource in RESOURCES.items()
    if resource["Type"] == "AWS::CloudWatch::Alarm"
}
PLACEHOLDERS = {
    "${RotatorFunction}": "<function>",
    "${AWS::Region}": "<region>",
    "${LogGroup}": "<log-group>",
    "${FailureQueue}": "<queue-url>",
    "${RotatorFunctionSchedule}": "<rule>",
}
# What AWS allows: names of functions, rules and queues, and a stack's name, of which log groups are named.
LONGEST = {
    "${RotatorFunction}": 64,
    "${RotatorFunctionSchedule}": 64,
    "${AWS::Region}": len("ap-southeast-1"),
    "${LogGroup}": len("/aws/lambda/") + 128 + len("-12345678"),
    "${FailureQueue.QueueName}": 80,
    "${FailureQueue}": len("https://sqs.ap-southeast-1.amazonaws.com/123456789012/") + 80,
    # Numbers
    "${AlarmAfterMinutes}": 4,
    "${ExpiryAlarmSeconds}": 10,
    "${AgeAlarmSeconds}": 10,
}
LINES_OF_A_SCREEN = 40
AWS = shutil.which("aws", path=f"{ROOT / '.tools/awscli/bin'}:{os.environ['PATH']}")
IS_VERSION_1 = AWS and subprocess.run([AWS, "--version"], capture_output=True).stdout.startswith(b"aws-cli/1.")


def section(alarm):
    return re.search(rf"^## {alarm}\n(.*?)(?=^## |\Z)", RUNBOOK, re.DOTALL | re.MULTILINE)[1]


def commands(text):
    return [line.strip() for line in text.splitlines() if line.strip().startswith("aws ")]


def test_every_alarm_has_a_section_and_every_section_that_is_named_so_has_an_alarm():
    assert re.findall(r"^## (\w+Alarm)$", RUNBOOK, re.MULTILINE) == list(ALARMS)


@pytest.mark.parametrize("alarm", ALARMS)
def test_a_section_fits_a_screen_and_says_what_suffers_what_to_run_and_what_then(alarm):
    text = section(alarm)
    assert len(text.splitlines()) <= LINES_OF_A_SCREEN
    assert text.index("**Impact:**") < text.index("**Run this:**") < text.index("**Then:**")


@pytest.mark.parametrize("alarm", ALARMS)
def test_a_description_says_the_same_and_has_the_commands_of_the_runbook(alarm):
    impact, run_this, command, *then = ALARMS[alarm].splitlines()
    assert impact.startswith("Impact: ") and run_this == "Run this:" and then[0].startswith("Then: ")
    described = ALARMS[alarm]
    for name, placeholder in PLACEHOLDERS.items():
        described = described.replace(name, placeholder)
    assert commands(described)[0] == commands(section(alarm))[0]
    assert set(commands(described)) <= set(commands(section(alarm)))
    assert command.startswith("aws ")


@pytest.mark.parametrize("alarm", ALARMS)
def test_a_description_fits_into_cloudwatch_with_the_longest_names_too(alarm):
    described = ALARMS[alarm]
    for name, longest in LONGEST.items():
        described = described.replace(name, longest * "x")
    assert "${" not in described
    assert len(described) <= 1024


@pytest.mark.skipif(not AWS, reason="needs the AWS CLI")
@pytest.mark.parametrize("kind", ["temporary", "access_key"])
def test_the_commands_in_the_descriptions_work_as_they_are(world, deployed, kind):
    outputs = deployed(world.new_ai_secret(), Kind=kind)
    rotate_deployed(world, outputs, SCHEDULED_EVENT)
    for name, alarm in alarms_of(world, outputs).items():
        for command in commands(alarm["AlarmDescription"]):
            if IS_VERSION_1 and " logs tail " in command:
                continue  # version 1 has no such command
            done = run_as_written(world, command)
            assert done.returncode == 0, f"{name}: {command}\n{done.stderr}"
            if " lambda invoke " in command:
                answer = json.JSONDecoder().raw_decode(done.stdout)[0]
                [target] = answer["targets"]
                assert target.get("outcome", target.get("state")) in ("rotated", "not_due", "ok"), (name, target)


def run_as_written(world, command):
    """Runs a command for version 2 of the AWS CLI with whichever version is here."""
    arguments = shlex.split(command)[1:]
    if IS_VERSION_1 and "--cli-binary-format" in arguments:
        # Version 1 lacks the option, and takes payloads as version 2 does with it.
        found = arguments.index("--cli-binary-format")
        del arguments[found : found + 2]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= world.cloud.ministack.root | {
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }
    arguments += ["--endpoint-url", world.aws.url]
    return subprocess.run([AWS, *arguments], env=environment, capture_output=True, text=True, timeout=60)
