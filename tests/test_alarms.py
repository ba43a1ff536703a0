"""How a deployed function is monitored: alarms, a dashboard, and a queue of the events that failed."""

import json
import uuid

import pytest
from support.deployed_alarms import (
    AGE,
    ALWAYS,
    EXPIRY,
    NAMESPACE,
    NO_SCHEDULED_RUN,
    NO_SUCCESS,
    alarms_of,
    settings,
    stack_of,
)
from support.deployed_function import SCHEDULED_EVENT, execution_policy, rotate_deployed, variables_of
from support.local_cloud import REGION
from support.queues import wait_for_message


def of_function(outputs):
    return [{"Name": "FunctionName", "Value": outputs["FunctionName"]}]


def test_the_age_that_raises_an_alarm_is_configurable(world, deployed):
    outputs = deployed(world.new_ai_secret(), Kind="access_key", AgeAlarmSeconds="86400")
    assert alarms_of(world, outputs)["AgeAlarm"]["Threshold"] == 86400


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("temporary", {"ExpiryAlarm": EXPIRY, "NoSuccessAlarm": NO_SUCCESS}),
        ("short_term_api_key", {"ExpiryAlarm": EXPIRY, "NoSuccessAlarm": NO_SUCCESS}),
        ("access_key", {"NoRunAlarm": NO_SCHEDULED_RUN, "AgeAlarm": AGE}),
        ("long_term_api_key", {"ExpiryAlarm": EXPIRY, "NoRunAlarm": NO_SCHEDULED_RUN, "AgeAlarm": AGE}),
    ],
)
def test_each_kind_has_the_alarms_that_suit_its_metrics(world, deployed, kind, more):
    outputs = deployed(world.new_ai_secret(), Kind=kind)
    found = alarms_of(world, outputs)
    assert {name: settings(alarm) for name, alarm in found.items()} == ALWAYS | more
    queue = outputs["FailureQueueArn"].rpartition(":")[2]
    for name, alarm in found.items():
        about = [{"Name": "QueueName", "Value": queue}] if name == "FailureQueueAlarm" else of_function(outputs)
        assert alarm["Dimensions"] == about, name
        assert alarm["ActionsEnabled"], name
        assert alarm["AlarmActions"] == alarm["OKActions"] == [outputs["AlarmTopicArn"]], name
        assert alarm["AlarmDescription"] and "${" not in alarm["AlarmDescription"], name
    assert subscriptions(world, outputs) == []


def subscriptions(world, outputs):
    answer = world.client("sns").list_subscriptions_by_topic(TopicArn=outputs["AlarmTopicArn"])
    return [(found["Protocol"], found["Endpoint"]) for found in answer["Subscriptions"]]


def test_alarms_use_the_configured_address_times_and_namespace(world, deployed):
    outputs = deployed(
        world.new_ai_secret(),
        AlarmEmail="on-call@example.com",
        AlarmAfterMinutes="20",
        ExpiryAlarmSeconds="300",
        MetricsNamespace="Acme/Rotator",
    )
    assert subscriptions(world, outputs) == [("email", "on-call@example.com")]
    found = alarms_of(world, outputs)
    assert found["ExpiryAlarm"]["Threshold"] == 300
    for name in ("ErrorsAlarm", "RotationFailedAlarm", "NoSuccessAlarm"):
        assert found[name]["EvaluationPeriods"] == 20
    assert found["NoSuccessAlarm"]["DatapointsToAlarm"] == 20
    namespaces = {alarm["Namespace"] for alarm in found.values()}
    assert namespaces == {"AWS/Lambda", "AWS/SQS", "Acme/Rotator"}
    assert variables_of(world, outputs)["METRICS_NAMESPACE"] == "Acme/Rotator"
    assert '\\"Acme/Rotator\\"' in json.dumps(dashboard(world, outputs))


def test_alarms_go_to_an_existing_topic(world, deployed):
    topic = world.client("sns").create_topic(Name=f"alarms-{uuid.uuid4().hex[:8]}")["TopicArn"]
    outputs = deployed(world.new_ai_secret(), AlarmTopicArn=topic)
    assert outputs["AlarmTopicArn"] == topic
    for alarm in alarms_of(world, outputs).values():
        assert alarm["AlarmActions"] == alarm["OKActions"] == [topic]
    made = world.client("cloudformation").describe_stack_resources(StackName=stack_of(outputs))
    assert not [r for r in made["StackResources"] if r["ResourceType"].startswith("AWS::SNS::")]


def dashboard(world, outputs):
    body = world.client("cloudwatch").get_dashboard(DashboardName=outputs["DashboardName"])["DashboardBody"]
    return json.loads(body)


def test_the_dashboard_shows_the_functions_metrics_and_latest_errors(world, deployed):
    outputs = deployed(world.new_ai_secret())
    widgets = dashboard(world, outputs)["widgets"]
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


def test_without_metrics_of_each_target_the_dashboard_and_the_alarms_use_those_of_the_function(world, deployed):
    outputs = deployed(world.new_ai_secret(), MetricsPerTarget="false")
    assert variables_of(world, outputs)["METRICS_PER_TARGET"] == "false"
    assert rotate_deployed(world, outputs)["outcome"] == "rotated"
    found = world.client("cloudwatch").list_metrics(Namespace=NAMESPACE)["Metrics"]
    names = {metric["MetricName"] for metric in found if metric["Dimensions"] == of_function(outputs)}
    assert {alarm["MetricName"] for alarm in alarms_of(world, outputs).values() if alarm["Namespace"] == NAMESPACE} <= names
    own = [metric for metric in found if outputs["FunctionName"] in str(metric["Dimensions"])]
    assert len(own) == len(names)
    widgets = dashboard(world, outputs)["widgets"]
    lines = [line[-1] for widget in widgets for line in widget["properties"].get("metrics", [])]
    about = f'{{"{NAMESPACE}",FunctionName}} FunctionName="{outputs["FunctionName"]}"'
    searches = [line["expression"] for line in lines if "expression" in line]
    assert len(searches) == 5 and all(search.startswith(f"SEARCH('{about} ") for search in searches)


def test_an_event_that_failed_for_good_is_kept_with_its_report(world, deployed):
    outputs = deployed(str(uuid.uuid4()))
    function = outputs["FunctionName"]
    event = json.loads(SCHEDULED_EVENT)
    world.client("lambda").invoke(FunctionName=function, InvocationType="Event", Payload=SCHEDULED_EVENT)
    kept = wait_for_message(world, outputs["FailureQueueUrl"])
    assert kept["requestPayload"] == event
    assert kept["requestContext"]["condition"] == "RetriesExhausted"
    report = json.loads(kept["responsePayload"]["errorMessage"])
    assert report["targets"][0]["error"]["class"] == "not_found"
    sqs = world.client("sqs")
    attributes = sqs.get_queue_attributes(QueueUrl=outputs["FailureQueueUrl"], AttributeNames=["All"])["Attributes"]
    assert (attributes["SqsManagedSseEnabled"], attributes["MessageRetentionPeriod"]) == ("true", str(14 * 24 * 3600))
    # The local Lambda doesn't need a permission for that, so the test looks at the one that AWS needs.
    config = world.client("lambda").get_function_event_invoke_config(FunctionName=function, Qualifier="$LATEST")
    assert config["DestinationConfig"]["OnFailure"] == {"Destination": outputs["FailureQueueArn"]}
    assert config["MaximumRetryAttempts"] == 2
    statement = execution_policy(world, outputs)["KeepWhatFailed"]
    assert (statement["Action"], statement["Resource"]) == ("sqs:SendMessage", outputs["FailureQueueArn"])
