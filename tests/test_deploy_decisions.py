"""What deploy.py decides without AWS: what a file says, what a stack would have and cost, and what goes together."""

import ast
import importlib.util
import json
import sys
from types import SimpleNamespace

import pytest
import yaml
from support.paths import ROOT

SCRIPT = ROOT / "deploy.py"


@pytest.fixture(scope="module")
def deploy():
    spec = importlib.util.spec_from_file_location("deploy", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def template(deploy, bundle):
    return deploy.Template(json.loads((bundle / "cloudformation.json").read_text()))


@pytest.fixture
def effective(template):
    """All parameters of a stack, with some changed."""

    def effective(**changed):
        pseudo = {"AWS::Region": "us-east-1", "AWS::Partition": "aws", "AWS::AccountId": "123456789012"}
        given = {"BraintrustApiKey": "sk-key", "AiSecretId": "5f1c9a52-8f0e-4a53-9d3b-2f6f1a7c4e10"}
        return {**pseudo, **template.defaults(), **given, **changed}

    return effective


def test_the_script_runs_on_python_3_9_and_needs_only_its_standard_library():
    tree = ast.parse(SCRIPT.read_text(), feature_version=(3, 9))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported and {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names - {"tomllib"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Match)]


@pytest.mark.parametrize(
    "value",
    [
        "plain", "rate(30 minutes)", "arn:aws:iam::123456789012:role/a", "30", "true", "", " ", "null", "~", "a: b", "a:",
        "# no comment", "a # b", '"quoted"', "it's", "[1, 2]", '[{"name": "us"}]', "{a}", "*", "- a", "-1", "a\\b", "%a",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "Zürich", "a@example.com", "@a", "&a", "!a", "=",
    ],
)  # fmt: skip
def test_a_value_is_read_as_it_was_written_by_this_script_and_by_yaml(deploy, value):
    text = deploy.updated_config("", {"Key": value})
    assert deploy.parse_config(text, "file")["Key"] == (value, 1)
    read = yaml.load(text, yaml.BaseLoader)["Key"]
    assert read == value


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("Key: a # comment", "a"),
        ("Key: a#b", "a#b"),
        ("Key: 'it''s' # comment", "it's"),
        ('Key: "a\\"b"', 'a"b'),
        ("Key:", ""),
        ("Key: # only a comment", ""),
        ("Key: ~", ""),
        ('Key: \'[{"name":"us"}]\'', '[{"name":"us"}]'),
    ],
)
def test_a_line_is_read_as_yaml_reads_it(deploy, line, value):
    assert deploy.parse_config(f"# comment\n\n{line}\n", "file")["Key"] == (value, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Key", 'file, line 1: found "Key". A line must be `Key: value`'),
        ("Key: a\n  nested: b", 'line 2: found "nested: b"'),
        ("Key: [a, b]", 'found "[a, b]". A value must be a single text'),
        ("Key: |", "A value must be a single text"),
        ("Key: - a", "A value must be a single text"),
        ("Key: a: b", "A value must be a single text"),
        ('Key: "a', "is not valid JSON"),
        ("Key: 'a", "the closing ' is missing"),
        ('Key: "a" b', 'found "b" after the closing quote'),
        ("Key: a\nKey: b", "line 2: Key is there twice; line 1 has it too"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_line(deploy, text, message):
    with pytest.raises(deploy.Stop) as refused:
        deploy.parse_config(text, "file")
    assert message in str(refused.value)


def test_a_new_file_has_every_parameter_once_with_its_description_and_default(deploy, template):
    text = deploy.blank_config(template, "rotator")
    assert deploy.parse_config(text, "file") == {}
    for name in set(template.parameters) - {"CodeKey"}:
        assert text.count(f"\n#{name}: ") == 1, name
    assert "\n# How many days the logs are kept.\n#LogRetentionDays: 30\n" in text
    assert "\n# --- Alarms ---\n" in text
    assert "BRAINTRUST_API_KEY sets it" in text and "FUNCTION_HTTPS_PROXY sets it" in text
    # Uncommented, it is what the template has anyway.
    everything = deploy.parse_config(text.replace("\n#", "\n").replace("\n ", "\n# ").replace("\n---", "\n#"), "file")
    assert {name: value for name, (value, _) in everything.items() if name in template.parameters} == {
        name: value for name, value in template.defaults().items() if name != "CodeKey"
    }


def test_an_answer_replaces_its_line_and_leaves_the_others(deploy):
    text = "# A note\nAlarmEmail: old@example.com\n\n#RotateAfter: 30d\nOverlap: 3h # chosen by Ann\n"
    updated = deploy.updated_config(text, {"AlarmEmail": "new@example.com", "RotateAfter": "10d", "Kind": "temporary"})
    assert updated == (
        "# A note\nAlarmEmail: new@example.com\n\nRotateAfter: 10d\nOverlap: 3h # chosen by Ann\nKind: temporary\n"
    )


@pytest.mark.parametrize(
    ("changed", "targets", "dollars"),
    [
        ({}, 1, 4.00),
        ({"StageCredentials": "true"}, 1, 4.40),
        ({"BraintrustApiKey": "", "BraintrustApiKeySecretArn": "arn"}, 1, 3.60),
        ({"Targets": json.dumps([{}] * 10), "AiSecretId": "", "RoleArns": "arn"}, 10, 17.50),
    ],
)
def test_the_cost_is_that_of_what_the_parameters_create(deploy, template, effective, changed, targets, dollars):
    values = effective(**changed)
    assert deploy.targets_in(values) == targets
    assert deploy.monthly_cost(template.created(values).values(), targets) == pytest.approx(dollars)


def test_targets_in_a_secret_cost_something_each(deploy, template, effective):
    values = effective(TargetsSecretArn="arn", AiSecretId="", RoleArns="arn")
    text = deploy.describe_cost(template.created(values).values(), deploy.targets_in(values))
    assert "1.50 $ more for each target" in text


def test_the_resources_are_counted_in_words(deploy):
    types = ["AWS::CloudWatch::Alarm"] * 2 + ["AWS::IAM::Policy", "AWS::IAM::ManagedPolicy", "AWS::New::Thing"]
    assert deploy.describe_resources(types) == "2 IAM policies, 2 alarms, 1 AWS::New::Thing"


@pytest.mark.parametrize("kind", ["temporary", "access_key", "short_term_api_key", "long_term_api_key"])
def test_every_rule_and_condition_of_the_template_is_understood(template, effective, kind):
    values = effective(Kind=kind)
    assert list(template.broken_rules(values)) == []
    # A rule whose condition doesn't hold isn't evaluated otherwise.
    for rule in template.rules.values():
        for assertion in rule["Assertions"]:
            assert template.evaluate(assertion["Assert"], values) in (True, False)
    for name in template.conditions:
        assert template.evaluate({"Condition": name}, values) in (True, False)
    assert ("IamUser" in template.created(values)) is (kind in ("access_key", "long_term_api_key"))


def test_each_list_member_is_checked(template):
    assert template.problem_with("VpcSubnetIds", "subnet-0123456789abcdef0, subnet-1123456789abcdef0") is None
    assert 'found "vpc-1"' in template.problem_with("VpcSubnetIds", "subnet-0123456789abcdef0,vpc-1")


def test_the_value_of_a_secret_is_not_shown(template):
    problem = template.problem_with("BraintrustApiKey", "sk secret")
    assert problem and "secret" not in problem


@pytest.mark.parametrize(
    ("given", "deployed", "emptied"),
    [
        ({"AiSecretId": "1"}, {"AiSecretName": "AWS Bedrock", "BraintrustOrgName": "Acme"}, {"AiSecretName", "BraintrustOrgName"}),
        ({"AiSecretName": "AWS Bedrock"}, {"AiSecretId": "1"}, {"AiSecretId"}),
        ({"BraintrustApiKeySecretArn": "arn"}, {"BraintrustApiKey": "****"}, {"BraintrustApiKey"}),
        ({"AlarmEmail": ""}, {"AlarmTopicArn": "arn"}, set()),
        ({"LogRetentionDays": "7"}, {"AiSecretId": "1"}, set()),
    ],
)  # fmt: skip
def test_a_value_empties_the_deployed_one_that_it_replaces(deploy, given, deployed, emptied):
    values = deploy.with_other_of_pairs_emptied(given, deployed)
    assert values == {**given, **dict.fromkeys(emptied, "")}


def test_parameters_that_are_not_given_keep_their_deployed_value(deploy, template):
    found = list(
        deploy.stack_parameters(template, {"LogRetentionDays": "7"}, {"BraintrustApiKey": "****", "Gone": "1"})
    )
    assert found == [
        {"ParameterKey": "BraintrustApiKey", "UsePreviousValue": True},
        {"ParameterKey": "LogRetentionDays", "ParameterValue": "7"},
    ]


@pytest.mark.parametrize(
    ("value", "is_secret"),
    [("http://proxy:3128", False), ("http://user:password@proxy:3128", True), ("sk-key", True), ("", False)],
)
def test_a_proxy_without_a_password_is_no_secret(deploy, value, is_secret):
    assert deploy.is_secret(value) is is_secret


def test_tags_are_pairs(deploy):
    assert deploy.tags_of("team=ml, cost center=a=b,") == [
        {"Key": "team", "Value": "ml"},
        {"Key": "cost center", "Value": "a=b"},
    ]
    with pytest.raises(deploy.Stop, match="key=value"):
        deploy.tags_of("team")


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        ("sk-key\n", "sk-key"),
        ('{"api_key": "bt-st-key", "service_token_id": "1"}', "bt-st-key"),
        ('{"key": "sk-key"}', None),
        ('["sk-key"]', None),
    ],
)
def test_the_key_in_a_secret_is_text_or_json(deploy, secret, key):
    assert deploy.api_key_in(secret) == key


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("\nAn error occurred (404) when calling the HeadBucket operation: Not Found\n", "404", "Not Found"),
        (
            "aws: [ERROR]: An error occurred (Throttling) when calling the X operation (reached max retries: 4): Rate: high",
            "Throttling",
            "Rate: high",
        ),
        ("Unable to locate credentials.", "", "Unable to locate credentials."),
    ],
)
def test_errors_of_both_versions_of_the_aws_cli_are_understood(deploy, text, code, message):
    error = deploy.aws_error(text)
    assert (error.code, error.message) == (code, message)


@pytest.mark.parametrize(
    ("partition", "region", "start"),
    [
        ("aws", "eu-west-1", "https://eu-west-1.console.aws.amazon.com/cloudwatch/"),
        ("aws-cn", "cn-north-1", "https://cn-north-1.console.amazonaws.cn/cloudwatch/"),
        ("aws-us-gov", "us-gov-west-1", "https://us-gov-west-1.console.amazonaws-us-gov.com/cloudwatch/"),
    ],
)
def test_the_dashboard_is_in_the_partitions_console(deploy, partition, region, start):
    aws = SimpleNamespace(partition=partition, region=region)
    assert deploy.dashboard_url(aws, "rotator").startswith(start)


def test_help_shows_examples_and_deploys_nothing(deploy, capsys):
    with pytest.raises(SystemExit) as ended:
        deploy.main(["--help"])
    assert ended.value.code == 0
    assert "python3 deploy.py --config deploy/rotator-eu.yaml" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stak", "a"], "unrecognized arguments"),
        (["--region", "nowhere"], "must be a region, such as us-east-1"),
        (["--config", "deploy/my_stack.yaml"], "Give --stack"),
        (["--yes"], "--yes goes with --delete"),
    ],
)
def test_a_wrong_option_is_status_1(deploy, capsys, arguments, message):
    assert deploy.main(arguments) == 1
    shown = capsys.readouterr().err
    assert message in shown and "Nothing was deployed." in shown
