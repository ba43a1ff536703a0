"""What is there to operate a deployed function by, and the template for a Bedrock role in another account."""

import json
import re
import time
import uuid

import boto3
import pytest
from botocore.exceptions import ClientError
from conftest import REGION, ROOT
from support.function import ARCHITECTURE
from support.iam import ACCOUNT
from support.upstream import form
from test_deployed import SCHEDULE, deployed, execution_policy, invoke, set_execution_policy, tick, variables

BEDROCK_ROLE = ROOT / "bedrock-role.yaml"
NAMESPACE = "BedrockBraintrustRotator"
MODEL = "amazon.nova-micro-v1:0"


def of_function(outputs):
    return [{"Name": "FunctionName", "Value": outputs["FunctionName"]}]


def alarms(bench, outputs):
    """The stack's alarms by logical id."""
    stack = stack_of(outputs)
    resources = bench.stack.client("cloudformation").describe_stack_resources(StackName=stack)
    found = bench.stack.client("cloudwatch").describe_alarms(AlarmNamePrefix=stack)["MetricAlarms"]
    names = {
        resource["PhysicalResourceId"]: resource["LogicalResourceId"]
        for resource in resources["StackResources"]
        if resource["ResourceType"] == "AWS::CloudWatch::Alarm"
    }
    return {names[alarm["AlarmName"]]: alarm for alarm in found if alarm["AlarmName"] in names}


def test_the_age_that_sets_off_an_alarm_is_given(bench, deployed):
    outputs = deployed(bench.ai_secret(), Kind="access_key", AgeAlarmSeconds="86400")
    assert alarms(bench, outputs)["AgeAlarm"]["Threshold"] == 86400


def test_the_function_has_the_time_that_is_given_and_the_architecture_that_was_built_for(bench, deployed):
    outputs = deployed(bench.ai_secret(), TimeoutSeconds="900")
    found = bench.stack.client("lambda").get_function_configuration(FunctionName=outputs["FunctionName"])
    assert (found["Architectures"], found["Timeout"]) == ([ARCHITECTURE], 900)


@pytest.mark.parametrize("kind", ["temporary", "access_key"])
def test_credentials_are_proven_with_the_model_that_is_given(bench, deployed, kind):
    outputs = deployed(bench.ai_secret(), Kind=kind, ProbeModelId=MODEL)
    minted = f"Credential={tick(bench, outputs)['credential_id']}/"
    # More than one, if new access keys are not known at once.
    probes = {request.path for request in bench.aws_requests() if minted in request.headers.get("authorization", "")}
    assert probes == {f"/model/{MODEL}/converse"}


def stack_of(outputs):
    return outputs["LogGroupName"].rpartition("/")[2]


def when(alarm):
    """What an alarm looks at, and when it goes off."""
    fields = ["Statistic", "Period", "EvaluationPeriods", "DatapointsToAlarm", "ComparisonOperator", "Threshold"]
    return (alarm["Namespace"], alarm["MetricName"], *(alarm.get(name) for name in fields), alarm["TreatMissingData"])


ALWAYS = {
    "ErrorsAlarm": ("AWS/Lambda", "Errors", "Sum", 60, 45, 2, "GreaterThanThreshold", 0, "notBreaching"),
    "RotationFailedAlarm": (NAMESPACE, "RotationFailed", "Sum", 60, 45, 2, "GreaterThanThreshold", 0, "notBreaching"),
    "ThrottlesAlarm": ("AWS/Lambda", "Throttles", "Sum", 300, 3, 3, "GreaterThanThreshold", 0, "notBreaching"),
    "FailureQueueAlarm": (
        "AWS/SQS",
        "ApproximateNumberOfMessagesVisible",
        "Maximum",
        300,
        1,
        None,
        "GreaterThanThreshold",
        0,
        "notBreaching",
    ),
}
EXPIRY = (NAMESPACE, "SecondsUntilExpiry", "Minimum", 60, 1, None, "LessThanThreshold", 1500, "ignore")
NO_SUCCESS = (NAMESPACE, "RotationSucceeded", "Sum", 60, 45, 45, "LessThanThreshold", 1, "breaching")
NO_TICK = (NAMESPACE, "CredentialAgeSeconds", "SampleCount", 60, 45, 45, "LessThanThreshold", 1, "breaching")
AGE = (NAMESPACE, "CredentialAgeSeconds", "Maximum", 60, 1, None, "GreaterThanThreshold", 45 * 86_400, "ignore")


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("temporary", {"ExpiryAlarm": EXPIRY, "NoSuccessAlarm": NO_SUCCESS}),
        ("short_term_api_key", {"ExpiryAlarm": EXPIRY, "NoSuccessAlarm": NO_SUCCESS}),
        ("access_key", {"NoTickAlarm": NO_TICK, "AgeAlarm": AGE}),
        ("long_term_api_key", {"ExpiryAlarm": EXPIRY, "NoTickAlarm": NO_TICK, "AgeAlarm": AGE}),
    ],
)
def test_each_kind_has_the_alarms_that_its_metrics_can_set_off(bench, deployed, kind, more):
    outputs = deployed(bench.ai_secret(), Kind=kind)
    found = alarms(bench, outputs)
    assert {name: when(alarm) for name, alarm in found.items()} == ALWAYS | more
    queue = outputs["FailureQueueArn"].rpartition(":")[2]
    for name, alarm in found.items():
        about = [{"Name": "QueueName", "Value": queue}] if name == "FailureQueueAlarm" else of_function(outputs)
        assert alarm["Dimensions"] == about, name
        assert alarm["ActionsEnabled"], name
        assert alarm["AlarmActions"] == alarm["OKActions"] == [outputs["AlarmTopicArn"]], name
        assert re.search("[Ff]irst ", alarm["AlarmDescription"]) and "${" not in alarm["AlarmDescription"], name
    assert subscriptions(bench, outputs) == []


def subscriptions(bench, outputs):
    answer = bench.stack.client("sns").list_subscriptions_by_topic(TopicArn=outputs["AlarmTopicArn"])
    return [(found["Protocol"], found["Endpoint"]) for found in answer["Subscriptions"]]


def test_alarms_go_to_the_address_and_mean_the_times_that_are_given(bench, deployed):
    outputs = deployed(
        bench.ai_secret(),
        AlarmEmail="on-call@example.com",
        AlarmAfterMinutes="20",
        ExpiryAlarmSeconds="300",
        MetricsNamespace="Acme/Rotator",
    )
    assert subscriptions(bench, outputs) == [("email", "on-call@example.com")]
    found = alarms(bench, outputs)
    assert found["ExpiryAlarm"]["Threshold"] == 300
    for name in ("ErrorsAlarm", "RotationFailedAlarm", "NoSuccessAlarm"):
        assert found[name]["EvaluationPeriods"] == 20
    assert found["NoSuccessAlarm"]["DatapointsToAlarm"] == 20
    namespaces = {alarm["Namespace"] for alarm in found.values()}
    assert namespaces == {"AWS/Lambda", "AWS/SQS", "Acme/Rotator"}
    assert variables(bench, outputs)["METRICS_NAMESPACE"] == "Acme/Rotator"
    assert '\\"Acme/Rotator\\"' in json.dumps(dashboard(bench, outputs))


def test_alarms_go_to_an_existing_topic(bench, deployed):
    topic = bench.stack.client("sns").create_topic(Name=f"alarms-{uuid.uuid4().hex[:8]}")["TopicArn"]
    outputs = deployed(bench.ai_secret(), AlarmTopicArn=topic)
    assert outputs["AlarmTopicArn"] == topic
    for alarm in alarms(bench, outputs).values():
        assert alarm["AlarmActions"] == alarm["OKActions"] == [topic]
    made = bench.stack.client("cloudformation").describe_stack_resources(StackName=stack_of(outputs))
    assert not [r for r in made["StackResources"] if r["ResourceType"].startswith("AWS::SNS::")]


def dashboard(bench, outputs):
    body = bench.stack.client("cloudwatch").get_dashboard(DashboardName=outputs["DashboardName"])["DashboardBody"]
    return json.loads(body)


def test_the_dashboard_shows_the_functions_metrics_and_last_errors(bench, deployed):
    outputs = deployed(bench.ai_secret())
    widgets = dashboard(bench, outputs)["widgets"]
    lines = [line[-1] for widget in widgets for line in widget["properties"].get("metrics", [])]
    expressions = [line["expression"] for line in lines if "expression" in line]
    searched = {"SecondsUntilExpiry", "CredentialAgeSeconds", "RotationSucceeded", "RotationFailed", "RotationDuration"}
    for metric in searched:
        [expression] = [found for found in expressions if f'MetricName="{metric}"' in found]
        about = f'{{"{NAMESPACE}",FunctionName,Target}} FunctionName="{outputs["FunctionName"]}"'
        assert expression.startswith(f"SEARCH('{about} ")
    of_lambda = [w for w in widgets if w["properties"]["title"] == "Lambda"][0]["properties"]["metrics"]
    assert [line[:4] for line in of_lambda] == [
        ["AWS/Lambda", name, "FunctionName", outputs["FunctionName"]]
        for name in ("Invocations", "Errors", "Throttles", "Duration")
    ]
    [log] = [w for w in widgets if w["type"] == "log"]
    assert log["properties"]["query"].startswith(f"SOURCE '{outputs['LogGroupName']}' | ")
    for widget in widgets:
        assert widget["properties"]["region"] == REGION
        assert widget["x"] + widget["width"] <= 24


def test_a_tick_that_lambda_gives_up_is_kept_with_its_report(bench, deployed):
    outputs = deployed(str(uuid.uuid4()))
    function = outputs["FunctionName"]
    event = json.loads(SCHEDULE)
    bench.stack.client("lambda").invoke(FunctionName=function, InvocationType="Event", Payload=SCHEDULE)
    kept = json.loads(wait_for_message(bench, outputs)["Body"])
    assert kept["requestPayload"] == event
    assert kept["requestContext"]["condition"] == "RetriesExhausted"
    report = json.loads(kept["responsePayload"]["errorMessage"])
    assert report["targets"][0]["error"]["class"] == "not_found"
    sqs = bench.stack.client("sqs")
    attributes = sqs.get_queue_attributes(QueueUrl=outputs["FailureQueueUrl"], AttributeNames=["All"])["Attributes"]
    assert (attributes["SqsManagedSseEnabled"], attributes["MessageRetentionPeriod"]) == ("true", str(14 * 24 * 3600))
    # The local Lambda puts it there whatever the role may do, so what AWS needs for that is looked at instead.
    config = bench.stack.client("lambda").get_function_event_invoke_config(FunctionName=function, Qualifier="$LATEST")
    assert config["DestinationConfig"]["OnFailure"] == {"Destination": outputs["FailureQueueArn"]}
    assert config["MaximumRetryAttempts"] == 2
    statement = execution_policy(bench, outputs)["KeepWhatFailed"]
    assert (statement["Action"], statement["Resource"]) == ("sqs:SendMessage", outputs["FailureQueueArn"])


def wait_for_message(bench, outputs):
    until = time.monotonic() + 60
    while time.monotonic() < until:
        answer = bench.stack.client("sqs").receive_message(QueueUrl=outputs["FailureQueueUrl"], WaitTimeSeconds=1)
        for message in answer.get("Messages", []):
            return message
    raise AssertionError("nothing came into the queue")


def test_tracing_and_a_vpc_bring_only_their_own_permissions(bench, deployed):
    ec2 = bench.stack.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.20.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.20.{n}.0/24", AvailabilityZone=f"{REGION}{zone}")["Subnet"]["SubnetId"]
        for n, zone in enumerate("ab")
    ]
    group = ec2.create_security_group(GroupName="rotator", Description="rotator", VpcId=vpc)["GroupId"]
    plain = deployed(bench.ai_secret())
    whole = deployed(
        bench.ai_secret(), Tracing="Active", VpcSubnetIds=",".join(subnets), VpcSecurityGroupIds=group
    )
    without, policy = execution_policy(bench, plain), execution_policy(bench, whole)
    assert set(policy) - set(without) == {"SendTraces", "RunInTheVpc"}
    assert set(policy["SendTraces"]["Action"]) == {"xray:PutTraceSegments", "xray:PutTelemetryRecords"}
    assert policy["RunInTheVpc"]["Condition"] == {"Null": {"lambda:SourceFunctionArn": "true"}}
    # The local CloudFormation leaves a function's VpcConfig out.
    for outputs, mode in ((plain, "PassThrough"), (whole, "Active")):
        function = bench.stack.client("lambda").get_function_configuration(FunctionName=outputs["FunctionName"])
        assert function["TracingConfig"] == {"Mode": mode}


def quoted(targets):
    """JSON as sam takes it inside the quotes of a parameter."""
    return json.dumps(targets).replace('"', '\\"')


def without_target(**parameters):
    return {"AiSecretId": None, **parameters}


def test_several_targets_rotate_and_the_function_may_do_no_more_than_they_need(bench, deployed):
    first, second, roles = bench.ai_secret(), bench.ai_secret(), [bench.stack.role(trust="*") for _ in range(3)]
    targets = [
        bench.target(first, name="us", role_arn=roles[0]),
        bench.target(second, name="eu", role_arn=roles[1], region="eu-central-1"),
    ]
    outputs = deployed(None, **without_target(Targets=quoted(targets), RoleArns=",".join(roles[:2])))
    assert json.loads(variables(bench, outputs)["TARGETS"]) == targets
    report, failed = invoke(bench.stack, outputs["FunctionName"], SCHEDULE)
    assert not failed, report
    assert [(target["name"], target["outcome"]) for target in report["targets"]] == [("us", "rotated"), ("eu", "rotated")]
    assert bench.holds_working_credentials(first) and bench.holds_working_credentials(second)
    policy = execution_policy(bench, outputs)
    assert set(policy) == {"AssumeTheBedrockRole", "ReadTheBraintrustApiKey", "WriteItsOwnLogs", "KeepWhatFailed"}
    assert policy["AssumeTheBedrockRole"]["Resource"] == roles[:2]
    found = {name: when(alarm) for name, alarm in alarms(bench, outputs).items()}
    assert found == ALWAYS | {"ExpiryAlarm": EXPIRY, "NoSuccessAlarm": NO_SUCCESS}
    assert not {"BedrockRoleArn", "IamUserName", "StagedSecretArn"} & set(outputs)


def test_users_of_another_account_are_watched_by_the_ticks_that_look_at_them(bench, deployed):
    target = bench.staged_target("access_key", bench.ai_secret(), role_arn=bench.stack.role(trust="*"))
    given = {"RoleArns": target["role_arn"], "StagedSecretArns": target["secret_id"]}
    outputs = deployed(None, **without_target(Targets=quoted([target]), **given))
    found = {name: when(alarm) for name, alarm in alarms(bench, outputs).items()}
    assert found == ALWAYS | {"ExpiryAlarm": EXPIRY, "NoTickAlarm": NO_TICK, "AgeAlarm": AGE}


def test_targets_may_be_in_a_secret_and_the_function_needs_to_read_it(bench, deployed):
    ids, role = [bench.ai_secret(f"secret {n}") for n in range(30)], bench.stack.role(trust="*")
    targets = [bench.target(id, name=f"target-{n}", role_arn=role) for n, id in enumerate(ids)]
    secret = bench.stack.secret(targets)
    key = bench.stack.client("kms").create_key()["KeyMetadata"]["Arn"]
    outputs = deployed(None, **without_target(TargetsSecretArn=secret, RoleArns=role, KmsKeyArn=key))
    assert "TARGETS" not in variables(bench, outputs)
    whole = execution_policy(bench, outputs)
    assert whole["ReadTheTargets"]["Resource"] == secret
    encrypted = whole["UseTheKeyOfTheSecrets"]["Condition"]["StringEquals"]["kms:EncryptionContext:SecretARN"]
    assert encrypted == [outputs["BraintrustApiKeySecretArn"], secret]
    set_execution_policy(bench, outputs, {name: s for name, s in whole.items() if name != "ReadTheTargets"})
    refused, failed = invoke(bench.stack, outputs["FunctionName"], SCHEDULE)
    assert failed and f'GetSecretValue: answered AccessDeniedException for the secret "{secret}"' in str(refused), refused
    set_execution_policy(bench, outputs, whole)
    report, failed = invoke(bench.stack, outputs["FunctionName"], SCHEDULE)
    assert not failed, report
    assert [target["outcome"] for target in report["targets"]] == ["rotated"] * 30


def test_two_schedules_rotate_the_targets_that_each_names(bench, deployed):
    """The stack's own, and one that is made by the README's commands."""
    ids, role = [bench.ai_secret() for _ in range(3)], bench.stack.role(trust="*")
    targets = [bench.target(id, name=name, role_arn=role) for id, name in zip(ids, ["a", "b", "nobodys"], strict=True)]
    outputs = deployed(
        None,
        **without_target(Targets=quoted(targets), RoleArns=role, ReservedConcurrency="2"),
        ScheduleExpression="rate(1 minute)",
        ScheduleTargets="a",
    )
    events, rule = bench.stack.client("events"), f"second-{uuid.uuid4().hex[:8]}"
    arn = events.put_rule(Name=rule, ScheduleExpression="rate(1 minute)")["RuleArn"]
    bench.stack.client("lambda").add_permission(
        FunctionName=outputs["FunctionName"], StatementId="second", Action="lambda:InvokeFunction",
        Principal="events.amazonaws.com", SourceArn=arn,
    )  # fmt: skip
    event = '{"action":"rotate","targets":["b"]}'
    events.put_targets(Rule=rule, Targets=[{"Id": "function", "Arn": outputs["FunctionArn"], "Input": event}])
    until = time.monotonic() + 150
    while not all(bench.holds_working_credentials(id) for id in ids[:2]):
        assert time.monotonic() < until, "a schedule has not rotated its target"
        time.sleep(1)
    assert not bench.holds_working_credentials(ids[2])
    reports = [json.loads(line) for line in logged(bench, outputs) if '"trigger"' in line]
    assert {tuple(target["name"] for target in report["targets"]) for report in reports} == {("a",), ("b",)}


def logged(bench, outputs):
    """What the function wrote."""
    events = bench.stack.client("logs").filter_log_events(logGroupName=outputs["LogGroupName"])["events"]
    return [line for event in events for line in event["message"].splitlines()]


def test_targets_may_be_of_every_kind_and_have_an_api_key_of_their_own(bench, deployed):
    secrets, users = [bench.ai_secret() for _ in range(3)], [bench.user() for _ in range(2)]
    staged = [bench.staged_secret() for _ in range(3)]
    role, other_key = bench.stack.role(trust="*"), bench.stack.secret(bench.api_key)
    standing = {"role_arn": None, "kind": "access_key"}
    keys = {"role_arn": None, "kind": "long_term_api_key"}
    entry = {"id": secrets[0], "api_key_secret_id": other_key}
    targets = [
        bench.target(entry, name="a", role_arn=role, secret_id=staged[0]),
        bench.target(secrets[1], name="b", user_name=users[0], secret_id=staged[1], **standing),
        bench.target(secrets[2], name="c", user_name=users[1], secret_id=staged[2], **keys),
    ]
    iam = bench.stack.client("iam")
    arns = [iam.get_user(UserName=user)["User"]["Arn"] for user in users]
    key = bench.stack.client("kms").create_key()["KeyMetadata"]["Arn"]
    outputs = deployed(
        None,
        **without_target(
            Targets=quoted(targets),
            RoleArns=role,
            IamUserArns=",".join(arns),
            StagedSecretArns=",".join(staged),
            ApiKeySecretArns=other_key,
            KmsKeyArn=key,
        ),
    )
    report, failed = invoke(bench.stack, outputs["FunctionName"], SCHEDULE)
    assert not failed, report
    assert [target["outcome"] for target in report["targets"]] == ["rotated"] * 3
    assert all(bench.holds_working_credentials(secret) for secret in secrets)
    policy = execution_policy(bench, outputs)
    for name in ("RotateAccessKeys", "MintApiKeysThatExpire", "RetireApiKeys"):
        assert policy[name]["Resource"] == arns
    assert policy["StageTheCredentials"]["Resource"] == staged
    assert policy["ReadTheTargetsApiKeys"]["Resource"] == [other_key]
    encrypted = policy["UseTheKeyOfTheSecrets"]["Condition"]["StringEquals"]["kms:EncryptionContext:SecretARN"]
    assert encrypted == [outputs["BraintrustApiKeySecretArn"], other_key, *staged]
    # With standing targets, no rotation may be due at a tick.
    assert {"NoTickAlarm", "ExpiryAlarm", "AgeAlarm"} <= set(alarms(bench, outputs))
    assert "NoSuccessAlarm" not in alarms(bench, outputs)


def caller_of(bench):
    """The role of `bench.stack.caller`."""
    return bench.stack.client("iam").get_role(RoleName="rotator-execution")["Role"]["Arn"]


class BedrockRole:
    """bedrock-role.yaml deployed, and Bedrock as the sessions of its role see it."""

    def __init__(self, bench, principal, **parameters):
        self.bench = bench
        self.name = f"bedrock-{uuid.uuid4().hex[:8]}"
        self.parameters = {"ExecutionRoleArn": principal, "ExternalId": "from-us", "RoleName": self.name, **parameters}

    @property
    def arn(self):
        return f"arn:aws:iam::{ACCOUNT}:role/{self.name}"

    def deploy(self):
        client = self.bench.stack.client("cloudformation")
        client.create_stack(
            StackName=self.name,
            TemplateBody=BEDROCK_ROLE.read_text(),
            Capabilities=["CAPABILITY_NAMED_IAM"],
            Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in self.parameters.items()],
        )
        client.get_waiter("stack_create_complete").wait(StackName=self.name, WaiterConfig={"Delay": 0.2, "MaxAttempts": 150})
        [stack] = client.describe_stacks(StackName=self.name)["Stacks"]
        assert [output["OutputValue"] for output in stack["Outputs"]] == [self.arn]
        return self

    def policy(self):
        document = self.bench.stack.client("iam").get_role_policy(RoleName=self.name, PolicyName="bedrock")
        return {statement["Sid"]: statement for statement in document["PolicyDocument"]["Statement"]}

    def client(self, service="bedrock-runtime", region=REGION):
        session = self.assume(ExternalId="from-us")
        pair = session["AccessKeyId"], session["SecretAccessKey"], session["SessionToken"]
        return boto3.session.Session(*pair, region_name=region).client(service, endpoint_url=self.bench.aws.url)

    def assume(self, **options):
        """As the role of `bench.stack.caller`."""
        caller = {name.lower(): value for name, value in self.bench.stack.caller.items()}
        session = boto3.session.Session(**caller, region_name=REGION)
        sts = session.client("sts", endpoint_url=self.bench.aws.url)
        return sts.assume_role(RoleArn=self.arn, RoleSessionName="test", **options)["Credentials"]

    def refused(self, call):
        """The error that a call is refused with; None if it is answered."""
        try:
            call()
        except ClientError as error:
            return error.response["Error"]["Code"]
        return None

    def converse(self, model=MODEL, region=REGION):
        message = {"role": "user", "content": [{"text": "."}]}
        return self.refused(lambda: self.client(region=region).converse(modelId=model, messages=[message]))

    def list_models(self, region=REGION):
        return self.refused(lambda: self.client("bedrock", region).list_foundation_models())


@pytest.fixture
def bedrock_role(bench):
    def bedrock_role(**parameters):
        return BedrockRole(bench, caller_of(bench), **parameters).deploy()

    return bedrock_role


def test_a_deployed_function_rotates_with_the_role_of_the_other_template(bench, deployed):
    ai_secret, role = bench.ai_secret(), BedrockRole(bench, "")
    # In the README's order: the role's ARN is known before the role is there.
    outputs = deployed(ai_secret, BedrockRoleArn=role.arn, ExternalId="from-us")
    report, failed = invoke(bench.stack, outputs["FunctionName"], SCHEDULE)
    assert failed and report["targets"][0]["error"]["call"] == "AssumeRole"
    role.parameters["ExecutionRoleArn"] = outputs["ExecutionRoleArn"]
    role.deploy()
    assert tick(bench, outputs)["outcome"] == "rotated"
    assert bench.holds_working_credentials(ai_secret)
    assert form(bench.aws_requests("sts:AssumeRole")[-1])["ExternalId"] == "from-us"


def test_a_short_term_api_key_needs_allow_api_keys(bench, deployed):
    ai_secret, role = bench.ai_secret(), BedrockRole(bench, "", AllowApiKeys="true")
    outputs = deployed(ai_secret, Kind="short_term_api_key", BedrockRoleArn=role.arn, ExternalId="from-us")
    role.parameters["ExecutionRoleArn"] = outputs["ExecutionRoleArn"]
    role.deploy()
    assert tick(bench, outputs)["outcome"] == "rotated"
    assert bench.holds_working_credentials(ai_secret)
    condition = {"StringEquals": {"bedrock:BearerTokenType": "SHORT_TERM"}}
    assert role.policy()["CallWithApiKeys"]["Condition"] == condition


def test_the_role_is_assumed_only_with_the_external_id_and_for_an_hour(bedrock_role):
    role = bedrock_role()
    assert role.assume(ExternalId="from-us")
    for options in ({}, {"ExternalId": "from-somebody-else"}):
        assert role.refused(lambda: role.assume(**options)) == "AccessDenied"
    found = role.bench.stack.client("iam").get_role(RoleName=role.name)["Role"]
    assert found["MaxSessionDuration"] == 3600
    [trusted] = found["AssumeRolePolicyDocument"]["Statement"]
    assert trusted["Principal"] == {"AWS": role.parameters["ExecutionRoleArn"]}
    assert trusted["Condition"] == {"StringEquals": {"sts:ExternalId": "from-us"}}


def test_nobody_else_assumes_the_role(bench):
    somebody = bench.stack.role(trust="*")
    role = BedrockRole(bench, somebody).deploy()
    assert role.refused(lambda: role.assume(ExternalId="from-us")) == "AccessDenied"


def test_a_role_without_limits_calls_every_model_and_no_more(bedrock_role):
    role = bedrock_role()
    assert (role.converse(), role.converse("another.model-v1:0", "eu-west-1"), role.list_models()) == (None,) * 3
    assert set(role.policy()) == {"InvokeModels", "ProveTheCredentials"}
    assert "Condition" not in role.policy()["InvokeModels"] and "Condition" not in role.policy()["ProveTheCredentials"]
    assert role.refused(lambda: role.client("bedrock").list_custom_models()) == "AccessDeniedException"


def test_a_role_for_some_regions_may_be_for_global_profiles_too(bedrock_role):
    """AWS calls the region of a global profile's calls that."""
    role = bedrock_role(Regions=f"{REGION},unspecified")
    asked = {"aws:RequestedRegion": [REGION, "unspecified"]}
    assert role.policy()["InvokeModels"]["Condition"]["StringEquals"] == asked


def test_a_role_for_some_models_calls_no_other(bedrock_role):
    arns = [f"arn:aws:bedrock:*::foundation-model/{MODEL}", "arn:aws:bedrock:us-east-1::foundation-model/amazon.titan-*"]
    role = bedrock_role(ModelArns=",".join(arns))
    assert role.policy()["InvokeModels"]["Resource"] == arns
    assert (role.converse(), role.converse("amazon.titan-text-lite-v1"), role.list_models()) == (None,) * 3
    assert role.converse("amazon.nova-lite-v1:0") == "AccessDeniedException"
    assert role.converse("amazon.titan-text-lite-v1", "eu-west-1") == "AccessDeniedException"


def test_a_role_for_some_regions_calls_in_no_other(bedrock_role):
    role = bedrock_role(Regions="us-east-1,eu-central-1")
    assert (role.converse(), role.converse(region="eu-central-1"), role.list_models()) == (None,) * 3
    assert role.converse(region="eu-west-1") == "AccessDeniedException"
    assert role.list_models("eu-west-1") == "AccessDeniedException"


def test_a_role_for_a_gateways_address_lets_the_function_prove_it_from_elsewhere(bedrock_role):
    role = bedrock_role(SourceAddresses="203.0.113.7/32,2001:db8::/48")
    assert role.converse() == "AccessDeniedException"
    assert role.list_models() is None
    role = bedrock_role(SourceAddresses="127.0.0.0/8", Regions=REGION)
    assert role.converse() is None
    assert role.converse(region="eu-west-1") == "AccessDeniedException"


@pytest.mark.parametrize(
    ("changed", "description"),
    [
        ({"ExternalId": ""}, "ExternalId"),
        ({"ExecutionRoleArn": "*"}, "ExecutionRoleArn"),
        ({"ExecutionRoleArn": "arn:aws:iam::000000000000:root"}, "ExecutionRoleArn"),
        ({"ModelArns": "amazon.nova-micro-v1:0"}, "ModelArns"),
        ({"SourceAddresses": "203.0.113.7"}, "SourceAddresses"),
    ],
)
def test_the_role_takes_no_parameter_that_would_open_it(bench, changed, description):
    role = BedrockRole(bench, caller_of(bench), **changed)
    with pytest.raises(ClientError, match=description):
        role.deploy()
