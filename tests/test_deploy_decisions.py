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
    "line",
    [
        "BraintrustApiKey=sk-secret", "sk-secret", "BraintrustApiKey:sk-secret", "BraintrustApiKey: [sk-secret]",
        "BraintrustApiKey: 'sk-secret", 'BraintrustApiKey: "sk-secret', "BraintrustApiKey: '' sk-secret",
        "HttpsProxy: @sk-secret", "HttpsProxy http://user:sk-secret@proxy",
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_read_is_not_repeated_because_it_may_hold_a_secret(deploy, line):
    with pytest.raises(deploy.Stop) as stopped:
        deploy.parse_config(f"{line}\n", "file")
    assert "file, line 1: " in str(stopped.value) and "secret" not in str(stopped.value)


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
        ("Key", "file, line 1: A line must be `Key: value`"),
        ("Key: a\n  nested: b", "line 2: A line must be `Key: value`"),
        ("Key: [a, b]", "line 1: Key: A value must be a single text"),
        ("Key: |", "A value must be a single text"),
        ("Key: - a", "A value must be a single text"),
        ("Key: a: b", "A value must be a single text"),
        ('Key: "a', "is not valid JSON"),
        ("Key: 'a", "the closing ' is missing"),
        ('Key: "a" b', 'Only a comment may follow the closing quote'),
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
    for variable in ("BRAINTRUST_API_KEY", "FUNCTION_HTTPS_PROXY"):
        assert f"Set it with the environment variable {variable}." in text
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
    assert "$1.50 more for each target" in text


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
        ({"AiSecretId": "5f1c"}, {"BraintrustProject": "support-bot", "BraintrustOrgName": "Acme"}, []),
        ({"AiSecretId": "5f1c", "BraintrustProject": ""}, {"BraintrustProject": "p", "BraintrustOrgName": "Acme"}, ["BraintrustOrgName"]),
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
        (["--yes"], "--yes goes with --delete or --targets"),
    ],
)
def test_a_wrong_option_is_status_1(deploy, capsys, arguments, message):
    assert deploy.main(arguments) == 1
    shown = capsys.readouterr().err
    assert message in shown and "Nothing was deployed." in shown


def provider_in(region):
    return {"id": "1", "name": "AWS Bedrock EU", "org_id": "2", "metadata": {"region": region}}


@pytest.mark.parametrize(
    ("before", "region", "kept"),
    [
        ({}, "eu-central-1", {"BedrockRegion": "eu-central-1"}),
        ({}, "us-east-1", {}),
        ({}, "somewhere", {}),
        ({}, None, {}),
        ({"BedrockRegion": "us-west-2"}, "eu-central-1", {}),
    ],
)
def test_a_provider_keeps_its_region_unless_another_is_set(
    deploy, template, monkeypatch, capsys, before, region, kept
):
    questions = deploy.Questions(SimpleNamespace(region="us-east-1"), template, "rotator", before)
    questions.providers, questions.organizations = [provider_in(region)], {"2": "Acme"}
    monkeypatch.setattr("builtins.input", lambda _: "1")
    questions.ask_provider()
    assert questions.answers == {"AiSecretId": "1", **kept}
    if region == "eu-central-1":
        assert "AWS Bedrock EU  Acme  eu-central-1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("before", "answer", "answers"),
    [
        ({"AiSecretName": "AWS Bedrock"}, "", {"AiSecretName": "AWS Bedrock"}),
        ({}, "5f1c9a52-8f0e-4a53-9d3b-2f6f1a7c4e10", {"AiSecretId": "5f1c9a52-8f0e-4a53-9d3b-2f6f1a7c4e10"}),
    ],
)
def test_a_projects_provider_is_asked_for_by_name_or_id(deploy, template, monkeypatch, capsys, before, answer, answers):
    """The list has the organizations' providers, and none of them is the project's."""
    before = {"BraintrustProject": "support-bot", **before}
    questions = deploy.Questions(SimpleNamespace(region="us-east-1"), template, "rotator", before)
    questions.providers, questions.organizations = [provider_in("us-east-1")], {"2": "Acme"}
    monkeypatch.setattr("builtins.input", lambda _: answer)
    questions.ask_provider()
    assert questions.answers == answers
    assert "BraintrustProject is support-bot" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("region", "provider", "text"),
    [
        ("eu-central-1", "eu-central-1", "Bedrock region: eu-central-1, as in Braintrust"),
        (
            "us-east-1",
            "eu-central-1",
            "Bedrock region: us-east-1; Braintrust has eu-central-1, and the first rotation changes it",
        ),
        ("us-east-1", None, "Bedrock region: us-east-1"),
    ],
)
def test_the_summary_says_whether_a_rotation_changes_the_providers_region(deploy, region, provider, text):
    assert deploy.describe_bedrock_region(region, provider_in(provider)) == text


class RecordedAws:
    """Answers like the AWS CLI, with what a test gives for each operation, and notes the calls."""

    region, account, partition = "us-east-1", "123456789012", "aws"

    def __init__(self, **answers):
        self.answers, self.calls = answers, []

    def call(self, service, operation, request=None, options=(), variables=None):
        self.calls.append(operation)
        answers = self.answers.get(operation.replace("-", "_"), [{}])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer


def in_status(status):
    return {"Stacks": [{"StackName": "rotator", "StackId": "arn", "StackStatus": status, "Parameters": []}]}


@pytest.fixture
def no_stack(deploy):
    return deploy.AwsError("ValidationError", "Stack with id rotator does not exist")


@pytest.fixture
def change(deploy, template):
    """Deploys with an AWS that answers so, and returns whether the change had begun when it was interrupted."""

    def change(aws):
        begun = []
        stack = deploy.Stack(aws, "rotator")
        with pytest.raises((KeyboardInterrupt, deploy.AwsError, deploy.Stop)):
            stack.change(template, "https://url", [], [], 1, lambda: begun.append(True))
        return bool(begun)

    return change


@pytest.mark.parametrize("interrupted", ["create_change_set", "describe_change_set"])
def test_an_interruption_before_the_change_removes_the_stack_in_review(change, no_stack, interrupted):
    answers = {"create_change_set": [{"StackId": "arn"}], interrupted: [KeyboardInterrupt()]}
    aws = RecordedAws(describe_stacks=[no_stack, in_status("REVIEW_IN_PROGRESS")], **answers)
    assert change(aws) is False
    assert aws.calls[-1] == "delete-stack"


def test_an_interruption_leaves_a_stack_that_was_in_review_before(change, capsys):
    aws = RecordedAws(describe_stacks=[in_status("REVIEW_IN_PROGRESS")], create_change_set=[KeyboardInterrupt()])
    assert change(aws) is False
    assert "delete-stack" not in aws.calls and "rotator is REVIEW_IN_PROGRESS" in capsys.readouterr().out


def test_an_interruption_before_an_update_removes_the_change_set(change):
    aws = RecordedAws(describe_stacks=[in_status("CREATE_COMPLETE")], create_change_set=[KeyboardInterrupt()])
    assert change(aws) is False
    assert aws.calls[-1] == "delete-change-set"


def test_from_the_execution_on_a_failed_call_no_longer_means_that_nothing_was_deployed(deploy, change, no_stack):
    throttled = deploy.AwsError("Throttling", "Rate exceeded")
    aws = RecordedAws(
        describe_stacks=[no_stack, throttled],
        create_change_set=[{"StackId": "arn"}],
        describe_change_set=[{"Status": "CREATE_COMPLETE"}],
        describe_stack_events=[{"StackEvents": []}],
    )
    assert change(aws) is True
    assert "delete-stack" not in aws.calls


def test_an_interruption_after_the_creation_is_status_2(deploy, monkeypatch, capsys):
    aws = RecordedAws(describe_stacks=[in_status("CREATE_COMPLETE")])

    class Interrupted:
        interrupted = f"Interrupted. {deploy.Stack(aws, 'rotator').how_to_look()}"

        def __init__(self, *_):
            pass

        def run(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(deploy, "Aws", lambda *_: aws)
    monkeypatch.setattr(deploy, "Deployment", Interrupted)
    assert deploy.main([]) == 2
    shown = capsys.readouterr().err
    assert "Nothing" not in shown and "CloudFormation continues" in shown


def test_the_log_group_is_listed_under_what_stays(deploy, capsys):
    def resource(type, id, status="CREATE_COMPLETE"):
        return {"ResourceType": type, "LogicalResourceId": "It", "PhysicalResourceId": id, "ResourceStatus": status}

    listed = [
        resource("AWS::SNS::Topic", "topic"),
        resource("AWS::Logs::LogGroup", "/aws/lambda/rotator-1"),
        resource("AWS::Logs::LogGroup", "/aws/lambda/gone", "DELETE_COMPLETE"),
    ]
    aws = RecordedAws(
        describe_stacks=[in_status("CREATE_COMPLETE")], list_stack_resources=[{"StackResourceSummaries": listed}]
    )
    deletion = deploy.Deletion(aws, SimpleNamespace())
    stack = deploy.Stack(aws, "rotator")
    deletion._show(stack, deletion._resources(stack), "bucket", [])
    deleted, stays = capsys.readouterr().out.split("The log group", 1)
    assert "with 1 topic\n" in deleted
    assert "aws logs delete-log-group --log-group-name /aws/lambda/rotator-1 --region us-east-1" in stays
    assert "gone" not in stays


def test_other_stacks_that_rotate_the_provider_are_found(deploy):
    def stack(name, **values):
        values = {"BraintrustApiUrl": "https://url", "BraintrustApiKeySecretArn": "", **values}
        parameters = [{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()]
        return {"StackName": name, "Parameters": parameters}

    stacks = [stack("rotator", AiSecretId="1"), stack("twin", AiSecretId="1"), stack("eu", AiSecretId="2")]
    foreign = {"StackName": "else", "Parameters": [{"ParameterKey": "AiSecretId", "ParameterValue": "1"}]}
    aws = RecordedAws(describe_stacks=[{"Stacks": [*stacks, foreign, {"StackName": "bare"}]}])
    assert deploy.stacks_with_provider(aws, "rotator", "1") == ["twin"]
    refused = RecordedAws(describe_stacks=[deploy.AwsError("AccessDenied", "not authorized")])
    assert deploy.stacks_with_provider(refused, "rotator", "1") == []


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("rate(20 minutes)", None),
        ("rate(1 minute)", None),
        ("cron(0 * * * ? *)", None),
        ("rate(1 minutes)", 'found "rate(1 minutes)", but it must be rate(1 minute)'),
        ("rate(2 hour)", 'found "rate(2 hour)", but it must be rate(2 hours)'),
        ("rate(0 minutes)", 'found "rate(0 minutes)", but it must be like rate(20 minutes) or rate(1 hour)'),
    ],
)
def test_a_rate_has_the_number_that_eventbridge_wants(template, expression, problem):
    assert template.problem_with("ScheduleExpression", expression) == problem


TOPIC = "arn:aws:sns:us-east-1:123456789012:alarms"


@pytest.mark.parametrize(
    ("arn", "code", "message"),
    [
        (TOPIC, "NotFound", "The topic can't be found: NotFound: no"),
        (TOPIC.replace("us-east-1", "eu-west-1"), None, "The topic is in eu-west-1. It must be in us-east-1."),
        (TOPIC, "AuthorizationError", None),
        (TOPIC, None, None),
    ],
)
def test_a_topic_for_alarms_must_exist_here(deploy, template, capsys, arn, code, message):
    aws = RecordedAws(get_topic_attributes=[deploy.AwsError(code, "no") if code else {}])
    questions = deploy.Questions(aws, template, "rotator", {})
    if message:
        with pytest.raises(deploy.WrongAnswer, match=message):
            questions._check_alarm(arn)
    else:
        assert questions._check_alarm(arn) == {"AlarmTopicArn": arn}
        assert ("isn't checked" in capsys.readouterr().out) is bool(code)


@pytest.mark.parametrize(
    ("results", "was_rotated", "text"),
    [
        (["ok", "ok", "unknown"], True, "Healthy, 2 checks ok, 1 proven by the rotation"),
        (["ok"], True, "Healthy, 1 check ok"),
        (["ok", "failed", "unknown"], True, "1 check ok, 1 proven by the rotation"),
        (["ok", "ok", "unknown"], False, "2 checks ok, 1 that only a rotation can tell"),
    ],
)
def test_a_rotation_proves_what_only_a_rotation_can_tell(deploy, results, was_rotated, text):
    assert deploy.describe_checks(results, was_rotated) == text


def test_only_the_outcome_rotated_proves_something(deploy):
    def rotated(name, *results):
        ai_secrets = [{"updated": True, "end_to_end": {"result": result}} for result in results]
        return {"name": name, "outcome": "rotated", "ai_secrets": [{"updated": True}, *ai_secrets]}

    not_due = {"name": "eu", "outcome": "not_due"}
    targets = [rotated("us"), not_due, rotated("proven", "proven"), rotated("unproven", "proven", "unproven")]
    assert deploy.rotated_in({"targets": targets}) == {"us", "proven"}


def test_what_could_not_be_read_is_shown_and_not_counted_as_proven(deploy, capsys):
    unread = {"what": "look at the projects", "result": "unknown", "note": "answered 403"}
    lines = [{"what": "one", "result": "ok"}, {"what": "two", "result": "unknown"}, unread]
    answer = {"ok": True, "targets": [{"name": "us", "lines": lines}]}
    assert deploy.doctor(SimpleNamespace(invoke=lambda *_: (answer, False)), "function", {"us"})
    shown = capsys.readouterr().out
    assert "us: Healthy, 1 check ok, 1 proven by the rotation\n" in shown
    assert "unknown: look at the projects (answered 403)" in shown


@pytest.mark.parametrize(("is_staged", "then"), [(True, "restored"), (False, "StageCredentials: true")])
def test_the_summary_says_what_the_proof_through_braintrust_does(deploy, is_staged, then):
    text = deploy.describe_proof("us.amazon.nova-micro-v1:0", is_staged)
    assert "one token of us.amazon.nova-micro-v1:0" in text and "price" in text and then in text


@pytest.mark.parametrize(("columns", "most"), [("60", 60), ("80", 80), ("200", 100)])
def test_the_summary_fits_the_terminal_and_breaks_at_words(deploy, template, effective, monkeypatch, columns, most):
    monkeypatch.setenv("COLUMNS", columns)
    text = deploy.describe_resources(template.created(effective()).values())
    lines = deploy.wrapped("  Resources  ", text).splitlines()
    assert 1 < len(lines) and max(map(len, lines)) <= most
    assert " ".join(line.strip() for line in lines) == f"Resources  {text}"
    arn = f"arn:aws:sns:us-east-1:123456789012:{'a-' * 50}"
    assert arn in deploy.wrapped("  Keeps      ", f"AlarmTopicArn={arn}")


def test_every_type_of_the_template_has_a_name(deploy, template):
    assert {resource["Type"] for resource in template.resources.values()} <= set(deploy.RESOURCE_NAMES)


def test_the_number_that_is_suggested_is_the_nearest(template):
    assert template.problem_with("LogRetentionDays", "91").endswith(". Did you mean 90?")
    assert template.problem_with("Kind", "acess_key").endswith(". Did you mean access_key?")


def test_all_mistakes_of_a_file_are_reported_at_once(deploy, template):
    text = "LogRetentionDays: 91\nAlarmMail: a@example.com\nRegion: nowhere\nTags: team\nOverlap: 3h\n"
    with pytest.raises(deploy.Stop) as refused:
        deploy.chosen_values(template, deploy.parse_config(text, "file"), {"BraintrustApiKey": "two words"}, "file")
    mistakes = str(refused.value).splitlines()
    assert [line.partition(": ")[0] for line in mistakes] == [
        "file, line 1", "file, line 2", "file, line 3", "file, line 4", "The environment variable BRAINTRUST_API_KEY",
    ]  # fmt: skip
    assert mistakes[0].endswith(". Did you mean 90?") and mistakes[1].endswith(". Did you mean AlarmEmail?")


def test_all_lines_that_cannot_be_read_are_reported_at_once(deploy):
    with pytest.raises(deploy.Stop) as refused:
        deploy.parse_config("Key\nOther: [a]\nOther: b\nKind: temporary\n", "file")
    assert [line.partition(": ")[0] for line in str(refused.value).splitlines()] == [
        "file, line 1", "file, line 2", "file, line 3",
    ]  # fmt: skip


SETTINGS = ["put-public-access-block", "put-bucket-encryption", "put-bucket-tagging", "put-bucket-policy"]


@pytest.mark.parametrize(
    ("code", "is_ours", "applied"),
    [
        ("NoSuchBucketPolicy", True, SETTINGS),
        ("NoSuchBucketPolicy", False, []),
        ("AccessDenied", True, []),
        (None, True, []),
    ],
)
def test_a_bucket_that_an_interruption_left_without_its_policy_is_protected(deploy, code, is_ours, applied):
    aws = RecordedAws(get_bucket_policy=[deploy.AwsError(code, "no") if code else {"Policy": "{}"}])
    deploy.ensure_bucket(aws, "bucket", is_ours, [{"Key": "team", "Value": "ml"}])
    assert [call for call in aws.calls if call.startswith("put-")] == applied


OWN_URL = "https://braintrust.acme.example"


@pytest.mark.parametrize(
    ("url", "deployed", "default"),
    [
        (OWN_URL, None, ""),
        ("https://api.braintrust.dev.evil.example", None, ""),
        ("https://evilbraintrust.dev", None, ""),
        ("https://api.braintrust.dev@evil.example", None, ""),
        ("https://[evil", None, ""),
        (OWN_URL, "https://other.example", ""),
        (OWN_URL, OWN_URL, f" [{OWN_URL}]"),
        ("https://api-eu.braintrust.dev", None, " [https://api-eu.braintrust.dev]"),
        ("http://127.0.0.1:8000", None, " [http://127.0.0.1:8000]"),
        ("", None, " [https://api.braintrust.dev]"),
    ],
)
def test_a_file_alone_does_not_make_enter_send_the_key_to_an_unknown_host(
    deploy, template, monkeypatch, capsys, url, deployed, default
):
    asked = []
    monkeypatch.setattr("builtins.input", lambda prompt: asked.append(prompt) or OWN_URL)
    monkeypatch.setattr(deploy, "check_braintrust_url", lambda answer: answer)
    questions = deploy.Questions(None, template, "rotator", {"BraintrustApiUrl": url})
    questions.ask_braintrust_url(deployed)
    assert asked == [f"2. Braintrust API URL{default}: "]
    assert ("Type it if it is yours" in capsys.readouterr().out) is (default == "")
