"""docs/company.md is true of the templates."""

import json
import re
import subprocess

import pytest
from samcli.yamlhelper import yaml_parse
from support.paths import ROOT

PAGE = (ROOT / "docs/company.md").read_text()
TEMPLATE = yaml_parse((ROOT / "template.yaml").read_text())
SETTINGS = [
    tuple(line.split(": ", 1))
    for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.parametrize(("name", "value"), SETTINGS)
def test_an_example_is_a_valid_setting(name, value):
    if name == "Tags":
        return  # of the stack, and therefore not a parameter
    parameter = TEMPLATE["Parameters"][name]
    for item in re.split(r", *", value) if parameter["Type"] == "CommaDelimitedList" else [value]:
        if "AllowedValues" in parameter:
            assert item in [str(allowed) for allowed in parameter["AllowedValues"]]
        else:
            assert re.search(parameter["AllowedPattern"], item), (name, item)


def actions_of(resource):
    text = json.dumps(resource)
    return set(re.findall(r'"((?:sts|iam|secretsmanager|kms|logs|sqs|events|xray|ec2|bedrock|bedrock-mantle):\w+)"', text))


def test_the_table_for_boundaries_has_every_action_of_the_roles_and_the_user():
    resources = TEMPLATE["Resources"]
    needed = actions_of(resources["ExecutionPolicy"]) | actions_of(resources["BedrockPolicy"])
    # Names of condition keys look like actions.
    needed -= {"bedrock:BearerTokenType", "iam:ServiceSpecificCredentialServiceName"}
    needed -= {"iam:ServiceSpecificCredentialAgeDays", "kms:ViaService", "kms:EncryptionContext"}
    section = PAGE.partition("## A permissions boundary")[2].partition("\n## ")[0]
    assert needed == set(re.findall(r"`([a-z0-9-]+:[A-Za-z]+)`", section))


def test_the_deployers_policy_gets_the_path_by_the_command_of_the_page(tmp_path):
    [command] = re.findall(r"^sed -i .*$", PAGE, re.MULTILINE)
    policy = tmp_path / "deployer-policy.json"
    policy.write_text((ROOT / "docs/deployer-policy.json").read_text())
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    found = re.findall(r"arn:\*:iam::\*:(role|policy)/([^\"]*)bedrock-braintrust-rotator-\*", policy.read_text())
    assert {path for _, path in found} == {"service/bedrock/"} and {kind for kind, _ in found} == {"role", "policy"}
