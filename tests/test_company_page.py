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
    return set(
        re.findall(r'"((?:sts|iam|s3|secretsmanager|kms|logs|sqs|events|xray|ec2|bedrock|bedrock-mantle):\w+)"', text)
    )


def test_the_table_for_boundaries_has_every_action_of_the_roles_and_the_user():
    resources = TEMPLATE["Resources"]
    needed = actions_of(resources["ExecutionPolicy"]) | actions_of(resources["BedrockPolicy"])
    # Names of condition keys look like actions.
    needed -= {"bedrock:BearerTokenType", "iam:ServiceSpecificCredentialServiceName"}
    needed -= {"iam:ServiceSpecificCredentialAgeDays", "kms:ViaService", "kms:EncryptionContext"}
    # AllowSessionRevocation can't be combined with a boundary of the company's.
    needed -= {"iam:GetRolePolicy", "iam:PutRolePolicy", "iam:PermissionsBoundary"}
    section = PAGE.partition("## A permissions boundary")[2].partition("\n## ")[0]
    assert needed == set(re.findall(r"`([a-z0-9-]+:[A-Za-z]+)`", section))


SED_PATH = r"^sed -i (?:.|\\\n)*?[^\\]$"
SED_STACK = r"^sed -e (?:.|\\\n)*?[^\\]$"


@pytest.fixture
def edited(tmp_path):
    """Runs commands of the page in a folder in which docs/deployer-policy.json is, and returns what they wrote."""
    policy = tmp_path / "deployer-policy.json"
    (tmp_path / "docs").mkdir()
    for copy in (tmp_path / "docs/deployer-policy.json", policy):
        copy.write_text((ROOT / "docs/deployer-policy.json").read_text())

    def edited(*patterns):
        for pattern in patterns:
            [command] = re.findall(pattern, PAGE, re.MULTILINE)
            subprocess.run(command.replace("<stack>", "keys"), shell=True, cwd=tmp_path, check=True)
        return json.loads(policy.read_text())["Statement"]

    return edited


def arns(statements):
    return set(re.findall(r'"(arn:[^"]+)"', json.dumps(statements)))


@pytest.mark.parametrize(
    ("patterns", "stack"), [([SED_PATH], "bedrock-braintrust-rotator"), ([SED_STACK, SED_PATH], "keys")]
)
def test_the_deployers_policy_gets_the_path_by_the_command_of_the_page(edited, patterns, stack):
    found = {arn for arn in arns(edited(*patterns)) if re.search(":(role|policy)/", arn)}
    names = [f"role/service/bedrock/{stack}-*", f"policy/service/bedrock/{stack}-*"]
    names.append(f"role/service/bedrock/{stack}-BedrockRole-*")
    assert found == {f"arn:*:iam::*:{name}" for name in names}


def test_the_deployers_policy_gets_another_stack_name_but_keeps_the_bucket(edited):
    found = arns(edited(SED_STACK))
    buckets = {arn for arn in found if ":s3:" in arn}
    bucket = "arn:*:s3:::bedrock-braintrust-rotator-*"
    assert buckets == {bucket, f"{bucket}/keys/*"}
    assert "arn:*:cloudformation:*:*:stack/keys/*" in found
    assert not [arn for arn in found - buckets if "bedrock-braintrust-rotator" in arn]
