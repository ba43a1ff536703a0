"""Each mistake in docs/troubleshooting.md is answered with the message that the page shows."""

import json
import subprocess

import pytest
from support.documents import code_spans, tables
from support.paths import ROOT

TABLES = tables(ROOT / "docs/troubleshooting.md")
API_KEY_SECRET = "braintrust-api-key"


def mistakes(heading):
    """The mistakes below a heading: what was written, and what the function says."""
    rows = [(code_spans(row[0]), row[0], code_spans(row[1])[0]) for row in TABLES[heading]]
    return [pytest.param(spans[0], message, id=text) for spans, text, message in rows]


def assert_says(text, message):
    """The text has the parts of the message in their order. `…` stands for anything."""
    position = 0
    for part in message.split("…"):
        found = text.find(part.strip(), position)
        assert found >= 0, f"{part!r} is missing in:\n{text}"
        position = found + len(part.strip())


def changed(world, fields):
    """The target of the page, with other values in some fields. None removes a field."""
    target = {**world.target({"name": "AWS Bedrock"}, name="prod-us"), **json.loads(f"{{{fields}}}")}
    return {field: value for field, value in target.items() if value is not None}


def user_based(world, name, user, secret, ai_secret):
    fields = {"kind": "access_key", "role_arn": None, "user_name": user, "secret_id": secret}
    return world.target({"name": ai_secret}, name=name, **fields)


def refusal(world, *targets, **variables):
    result = world.new_function(*targets, **variables).invoke({"action": "rotate"})
    assert result.body["errorType"] == "StartRefused", result.body
    return result.body["errorMessage"]


@pytest.mark.parametrize(("fields", "message"), mistakes("In a target"))
def test_a_mistake_in_a_target(world, fields, message):
    assert_says(refusal(world, changed(world, fields), BRAINTRUST_API_KEY_SECRET_ID=API_KEY_SECRET), message)


@pytest.mark.parametrize(("variable", "message"), mistakes("In a variable"))
def test_a_mistake_in_a_variable(world, variable, message):
    name, _, value = variable.partition("=")
    assert_says(refusal(world, changed(world, ""), **{name: value}), message)


# The name, the IAM user, the secret, and the ai_secret of the second of two targets.
SECOND = {
    "two targets named `prod-us`": ("prod-us", "another", "another", "another"),
    "two targets with the `ai_secret` `AWS Bedrock`": ("prod-eu", "another", "another", "AWS Bedrock"),
    "two targets with the user `braintrust`": ("prod-eu", "braintrust", "another", "another"),
    "two targets with the secret `staged`": ("prod-eu", "another", "staged", "another"),
}


@pytest.mark.parametrize("row", TABLES["In a list of targets"], ids=lambda row: row[0])
def test_a_mistake_in_a_list_of_targets(world, row):
    first = user_based(world, "prod-us", "braintrust", "staged", "AWS Bedrock")
    if row[0] in SECOND:
        targets = json.dumps([first, user_based(world, *SECOND[row[0]])])
    elif row[0] == "`revoke_sessions` and two targets with one role":
        names = {"prod-us": "AWS Bedrock", "prod-eu": "another"}
        role = {"role_arn": "arn:aws:iam::123456789012:role/bedrock", "revoke_sessions": True}
        targets = json.dumps([world.target({"name": held}, name=name, **role) for name, held in names.items()])
    else:
        assert row[0] == "the field `region` twice"
        targets = json.dumps([first]).replace('"region":', '"region": "us-east-1", "region":')
    assert_says(refusal(world, TARGETS=targets), code_spans(row[1])[0])


@pytest.mark.parametrize(("event", "message"), mistakes("Mistakes in an event"))
def test_a_mistake_in_an_event(world, event, message):
    result = world.new_function(changed(world, "")).invoke(event.encode())
    assert result.body["errorType"] == "EventRefused", result.body
    assert_says(result.body["errorMessage"], message)


@pytest.fixture(scope="module")
def wrong_secrets(cloud):
    cloud.new_secret("sk-revoked", name="revoked-key")
    cloud.new_secret('{"username":"admin","password":"x"}', name="a-database")


@pytest.mark.parametrize(("fields", "message"), mistakes("Mistakes that a rotation finds"))
def test_a_mistake_that_a_rotation_finds(world, wrong_secrets, fields, message):
    world.new_ai_secret("AWS Bedrock")
    world.new_ai_secret("OpenAI", type="openai")
    world.new_project_provider(project=world.braintrust.add_project("support-bot"))
    [target] = world.fail_to_rotate(changed(world, fields))["targets"]
    assert_says(f"{target['error']['class']}: {target['error']['problem']}", message)


@pytest.mark.parametrize(("command", "message"), mistakes("Mistakes in a command"))
def test_a_mistake_in_a_command(command, message):
    result = subprocess.run(command.split(), cwd=ROOT, capture_output=True, text=True)
    assert result.returncode != 0
    assert_says(result.stderr, message)
