"""What deploy.py says about a list of targets before it calls AWS."""

import importlib.util
import json

import jsonschema
import pytest
from support.paths import ROOT
from support.sources import TARGETS_SCHEMA

ROLE = "arn:aws:iam::123456789012:role/braintrust-bedrock"
SECRET = "arn:aws:secretsmanager:us-east-1:123456789012:secret:"
ID = "5f1c9a52-8f0e-4a53-9d3b-2f6f1a7c4e10"
TARGET = {"name": "prod", "kind": "temporary", "role_arn": ROLE, "region": "us-east-1", "ai_secrets": [{"id": ID}]}
SECOND = {"name": "eu", "ai_secrets": [{"name": "AWS Bedrock"}]}
USER = {"kind": "access_key", "role_arn": None, "user_name": "braintrust-us", "secret_id": "braintrust/us"}


@pytest.fixture(scope="module")
def deploy():
    spec = importlib.util.spec_from_file_location("deploy", ROOT / "deploy.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def read(deploy, tmp_path):
    def read(targets):
        file = tmp_path / "fleet.json"
        file.write_text(targets if isinstance(targets, str) else json.dumps(targets))
        return deploy.TargetList(str(file), TARGETS_SCHEMA)

    return read


def without(*fields, **changed):
    return {name: value for name, value in {**TARGET, **changed}.items() if name not in fields}


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ("[", "can't be read as a JSON array of targets"),
        ('[{"name": "a", "name": "b"}]', 'the field "name" is given twice'),
        ([], "the list must have 1 or more items"),
        ({}, "the list must be an array"),
        (["prod"], "target number 1 must be an object"),
        ([without("region")], 'target "prod" needs the field region'),
        ([without("name")], "target number 1 needs the field name"),
        ([without(name="two words")], 'target "two words": name is "two words", which must match'),
        ([without(kind="eternal")], 'kind must be one of "temporary"'),
        ([without("role_arn")], "needs the field role_arn"),
        ([without(role_arn=None)], "role_arn is missing"),
        ([without(user_name="x")], "user_name isn't accepted here"),
        ([without(duration_seconds=7200)], "duration_seconds must be from 900 to 3600"),
        ([without(duration_seconds="1h")], "duration_seconds must be a whole number"),
        (json.dumps([TARGET]).replace("}]}]", '}], "duration_seconds": NaN}]'), "NaN is not a number of JSON"),
        (json.dumps([TARGET]).replace("}]}]", '}], "duration_seconds": 1e999}]'), "must be a whole number"),
        ([without(revoke_sessions="yes")], "revoke_sessions must be true or false"),
        ([without(ai_secrets=[])], "ai_secrets must have 1 or more items"),
        ([without(ai_secrets=[{}])], "ai_secrets[0] needs id or name, and only one of them"),
        ([without(ai_secrets=[{"id": ID, "name": "x"}])], "ai_secrets[0] needs id or name, and only one of them"),
        ([without(ai_secrets=[{"id": ID, "idd": 1}])], "ai_secrets[0].idd is unknown. Did you mean id?"),
        ([without(probe={"converse": []})], "probe"),
        ([without(session_tags={"aws:x": "y"})], "session_tags.aws:x has a name that"),
        ([without(name="prod\n")], "name"),
        ([without(role_arn=f"{ROLE}\n")], "role_arn"),
        ([TARGET, TARGET], 'the name "prod" is used 2 times'),
        ([TARGET, without(name="eu")], f'the ai_secret "{ID}" is used 2 times'),
        ([without(ai_secrets=[{"id": ID}, {"id": ID.upper()}])], f'the ai_secret "{ID}" is used 2 times'),
        ([without(**USER), without(**USER, **SECOND)], 'the secret_id of "prod" is used 2 times'),
        ([without(**USER), without(**USER | {"secret_id": "b"}, **SECOND)], 'user "braintrust-us" is used 2 times'),
    ],
)
def test_a_mistake_is_named_with_its_target_and_field(deploy, read, targets, message):
    with pytest.raises(deploy.Stop) as refused:
        read(targets)
    assert message in str(refused.value)


@pytest.mark.parametrize("secret", ["sk-live", "Bearer sk-live", "\x1b[2Jsk-live", "sk-live|"])
@pytest.mark.parametrize("field", ["secret_id", "external_id", "api_key_secret_id", "api_url"])
def test_a_secret_in_the_wrong_field_is_not_repeated(deploy, read, field, secret):
    # As an external ID, an API key is well-formed.
    given = {field: f"{secret}|" if field == "external_id" else secret}
    target = without(ai_secrets=[{"id": ID, **given}]) if field.startswith("api") else without(**given)
    with pytest.raises(deploy.Stop) as refused:
        read([target])
    assert field in str(refused.value) and "live" not in str(refused.value)


@pytest.mark.parametrize(
    "target",
    [
        without(ai_secrets=[{"id": "sk-live"}]),
        without(role_arn="bt-st-live"),
        without(secret_id="sk-live"),
        without(ai_secrets=[{"id": ID, "api_key_secret_id": "sk-live"}]),
    ],
)
def test_an_api_key_in_the_wrong_field_is_recognized_and_not_repeated(deploy, read, target):
    with pytest.raises(deploy.Stop) as refused:
        read([target])
    assert "what looks like an API key" in str(refused.value) and "live" not in str(refused.value)


def test_an_id_that_is_no_uuid_is_refused_before_the_upload(deploy, read):
    with pytest.raises(deploy.Stop) as refused:
        read([without(ai_secrets=[{"id": "AWS Bedrock"}])])
    assert 'ai_secrets[0].id is "AWS Bedrock", which must be a UUID.' in str(refused.value)


def test_a_missing_field_is_named_once_and_a_question_ends_with_its_mark(deploy, read):
    with pytest.raises(deploy.Stop) as refused:
        read([{key: value for key, value in without().items() if key != "role_arn"} | {"regoin": "us-east-1"}])
    lines = str(refused.value).splitlines()
    assert len(lines) == len(set(lines)) and any(line.endswith("Did you mean region?") for line in lines)


@pytest.mark.parametrize(("field", "parameter"), [("secret_id", "StagedSecretArns"), ("api_key_secret_id", "ApiKey")])
def test_what_stands_in_the_place_of_a_secrets_arn_is_not_repeated(deploy, read, field, parameter):
    given = {field: "wJalrXUtnFEMI"}
    target = without(ai_secrets=[{"id": ID, **given}]) if field.startswith("api") else without(**given)
    with pytest.raises(deploy.Stop) as refused:
        read([target]).refuse_what_is_not_allowed(ALLOWED, "the file")
    assert f'"prod" uses the secret in its {field}, which {parameter}' in str(refused.value)
    assert "wJal" not in str(refused.value)


def test_no_refusal_controls_the_terminal(deploy, read):
    with pytest.raises(deploy.Stop) as refused:
        read([without(role_arn="arn:aws\x1b[2J:iam::123456789012:role/x")]).refuse_what_is_not_allowed(ALLOWED, "file")
    assert "RoleArns" in str(refused.value) and "\x1b" not in str(refused.value)


def test_a_byte_order_mark_is_not_uploaded(deploy, tmp_path):
    file = tmp_path / "fleet.json"
    file.write_text(json.dumps([TARGET]), encoding="utf-8-sig")
    assert deploy.TargetList(file, TARGETS_SCHEMA).bytes == json.dumps([TARGET]).encode()


def test_of_many_mistakes_the_first_ten_are_shown(deploy, read):
    with pytest.raises(deploy.Stop) as refused:
        read([without("region", name=f"target-{n}") for n in range(25)])
    lines = str(refused.value).splitlines()
    assert len(lines) == 11 and lines[-1].endswith("and 15 more")


def keywords_of(schema):
    """The keywords of a JSON Schema."""
    found = set()
    for keyword, rule in schema.items():
        found.add(keyword)
        if keyword == "properties":
            parts = list(rule.values())
        elif keyword in ("allOf", "anyOf", "oneOf"):
            parts = rule
        else:
            parts = [rule]
        for part in parts:
            if isinstance(part, dict) and keyword not in ("const", "default"):
                found |= keywords_of(part)
    return found


def test_every_keyword_of_the_schema_is_known():
    known = {
        "type", "const", "pattern", "maxLength", "minimum", "maximum", "minItems", "maxItems", "uniqueItems", "items",
        "properties", "required", "additionalProperties", "maxProperties", "propertyNames", "allOf", "anyOf", "oneOf",
        "not", "if", "then",
    }  # fmt: skip
    about_the_schema = {"$schema", "title", "description", "default", "format"}
    assert keywords_of(TARGETS_SCHEMA) == known | about_the_schema


VARIANTS = [
    {}, USER, {**USER, "kind": "long_term_api_key", "credential_age_days": 30}, {"kind": "short_term_api_key"},
    {"probe": "models"}, {"probe": {"converse": "m"}}, {"probe": {"converse": ["m", "m"]}}, {"probe": {"converse": 1}},
    {"end_to_end": {"model": "m"}}, {"end_to_end": {}}, {"ai_secrets": [{"name": "x", "org_name": "Acme"}]},
    {"ai_secrets": [{"id": ID, "org_name": "Acme"}]}, {"ai_secrets": [{"id": ID, "project": "p", "org_name": "Acme"}]},
    {"ai_secrets": [{"id": ID, "project": ID, "org_name": "Acme"}]}, {"external_id": "a"}, {"external_id": "ab"},
    {"rotate_after": "30d"}, {**USER, "rotate_after": "30"}, {**USER, "rotate_after": "0d"}, {"layout": "auto"},
    {"ai_secrets": [{"id": ID, "layout": "documented"}]}, {"ai_secrets": [{"id": ID, "api_url": "http://x.example"}]},
    {"kind": "short_term_api_key", "ai_secrets": [{"id": ID, "layout": "documented"}]}, {"duration_seconds": 900.5},
    {"duration_seconds": True}, {"session_policy": {"Version": "x"}}, {"session_policy": "{}"}, {"secret_id": "bt-st-1"},
    {"source_identity": "{target}"}, {"source_identity": "x"}, {**USER, "source_identity": "team"}, {"region": " "},
]  # fmt: skip


@pytest.mark.parametrize("changed", VARIANTS, ids=json.dumps)
def test_a_target_is_accepted_if_another_validator_of_the_schema_accepts_it(deploy, changed):
    # Python has no \\p, and no value here needs it.
    schema = json.loads(json.dumps(TARGETS_SCHEMA).replace(r"\\p{L}\\p{N}", r"\\w"))
    target = {**TARGET, **changed}
    expected = jsonschema.Draft202012Validator(schema).is_valid([target])
    assert (not list(deploy.mistakes_in([target], TARGETS_SCHEMA))) is expected


ALLOWED = {
    "RoleArns": "arn:aws:iam::*:role/braintrust-bedrock",
    "IamUserArns": "arn:aws:iam::123456789012:user/braintrust-*",
    "StagedSecretArns": f"{SECRET}braintrust/*,{SECRET}staged-*",
    "ApiKeySecretArns": f"{SECRET}keys/eu-AbCdEf, {SECRET}keys/us-AbCdEf",
    "BraintrustApiKeySecretArn": f"{SECRET}api-key-AbCdEf",
    "AllowSessionTags": "false",
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, None),
        ({"role_arn": ROLE.replace("123456789012", "210987654321")}, None),
        ({"role_arn": f"{ROLE}-2"}, f"{ROLE}-2, which RoleArns doesn't allow. Add this there: {ROLE}-2"),
        (USER, None),
        ({**USER, "user_name": "braintrust"}, "braintrust, which IamUserArns doesn't allow"),
        ({**USER, "user_name": "somebody"}, "somebody, which IamUserArns doesn't allow"),
        ({**USER, "user_name": "somebody", "role_arn": ROLE}, None),
        ({"secret_id": f"{SECRET}braintrust/us-AbCdEf"}, None),
        ({"secret_id": "braintrust/us"}, None),
        ({"secret_id": f"{SECRET}braintrust/us"}, None),
        ({"secret_id": f"{SECRET}braintrust/us-AbCdEf".replace("us-east-1", "eu-west-1")}, "StagedSecretArns doesn't"),
        ({"secret_id": f"{SECRET}x".replace("123456789012", "210987654321")}, "StagedSecretArns doesn't allow"),
        ({"secret_id": "staged"}, None),
        ({"secret_id": f"{SECRET}staged"}, None),
        ({"secret_id": "stage"}, "secret_id, which StagedSecretArns doesn't allow. Add this there: its ARN"),
        ({"secret_id": "elsewhere"}, "secret_id, which StagedSecretArns doesn't allow"),
        ({"ai_secrets": [{"id": ID, "api_key_secret_id": "keys/us"}]}, None),
        ({"ai_secrets": [{"id": ID, "api_key_secret_id": f"{SECRET}keys/us-AbCdEf"}]}, None),
        ({"ai_secrets": [{"id": ID, "api_key_secret_id": "api-key"}]}, None),
        ({"ai_secrets": [{"id": ID, "api_key_secret_id": "keys/jp"}]}, "api_key_secret_id, which ApiKeySecretArns"),
        ({"source_identity": "team"}, "Write AllowSessionTags: true"),
    ],
    ids=str,
)
def test_what_the_stacks_policy_does_not_allow_is_refused_before_it_is_uploaded(deploy, read, changed, message):
    target = {**TARGET, **changed}
    if message is None:
        assert read([target]).refuse_what_is_not_allowed(ALLOWED, "the file") is None
        return
    with pytest.raises(deploy.Stop) as refused:
        read([target]).refuse_what_is_not_allowed(ALLOWED, "the file")
    assert message in str(refused.value)


def test_only_the_arns_of_secrets_are_suggested(deploy, read):
    arn = f"{SECRET}elsewhere-AbCdEf"
    targets = [without(name=name, secret_id=id, ai_secrets=[{"name": name}]) for name, id in (("us", "x"), ("eu", arn))]
    with pytest.raises(deploy.Stop) as refused:
        read(targets).refuse_what_is_not_allowed(ALLOWED, "the file")
    assert "its secret_id and 1 more, which" in str(refused.value)
    assert str(refused.value).endswith(f"Add this there: {arn}")


def test_for_roles_of_one_name_in_several_accounts_a_pattern_is_suggested(deploy, read):
    roles = [f"arn:aws:iam::{n:012}:role/team/bedrock" for n in range(1, 4)]
    targets = [
        without(name=f"target-{n}", role_arn=role, ai_secrets=[{"name": str(n)}]) for n, role in enumerate(roles)
    ]
    with pytest.raises(deploy.Stop) as refused:
        read(targets).refuse_what_is_not_allowed(ALLOWED, "the file")
    assert f"{roles[0]} and 2 more" in str(refused.value)
    assert str(refused.value).endswith("Add this there: arn:aws:iam::*:role/team/bedrock")


def test_the_targets_that_are_new_or_different_or_gone_are_named(read):
    first, second, third = (without(name=name, ai_secrets=[{"name": name}]) for name in ("first", "second", "third"))
    before = json.dumps([first, {**second, "region": "eu-west-1"}]).encode()
    assert read([first, second, third]).changes_since(before) == (["second", "third"], [])
    assert read([third]).changes_since(before) == (["third"], ["first", "second"])
    assert read([TARGET]).changes_since(None) == (["prod"], [])


def test_of_a_list_that_cannot_be_read_nobody_knows_what_is_gone(read):
    assert read([TARGET]).changes_since(b"[") == (["prod"], None)
