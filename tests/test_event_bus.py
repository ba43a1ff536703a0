"""The report of each scheduled run on an event bus, and the examples of what can follow from it."""

import json
import re
import shlex
import time
import uuid

import pytest
from support.deployed_function import SCHEDULED_EVENT, execution_policy
from support.http_messages import Reply
from support.local_iam import ACCOUNT
from support.paths import ROOT
from support.queues import new_queue, wait_for_message
from support.recording_server import RecordingServer
from support.world import OLD_METADATA

EXAMPLES = ROOT / "docs/examples"


@pytest.fixture
def bus(world):
    """The name of an event bus, and the URL of a queue that gets everything from it."""
    events, name = world.client("events"), f"bus-{uuid.uuid4().hex[:8]}"
    events.create_event_bus(Name=name)
    url, arn = new_queue(world, name)
    events.put_rule(Name=f"{name}-all", EventBusName=name, EventPattern='{"source": [{"prefix": ""}]}')
    events.put_targets(Rule=f"{name}-all", EventBusName=name, Targets=[{"Id": "queue", "Arn": arn}])
    return name, url


def run_by_schedule(world, outputs):
    function = outputs["FunctionName"]
    world.client("lambda").invoke(FunctionName=function, InvocationType="Event", Payload=SCHEDULED_EVENT)


def deploy_example(world, name, **parameters):
    """Deploys a template of docs/examples, and returns the IDs of its resources."""
    client, stack = world.client("cloudformation"), f"{name}-{uuid.uuid4().hex[:8]}"
    client.create_stack(
        StackName=stack,
        TemplateBody=(EXAMPLES / f"{name}.yaml").read_text(),
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in parameters.items()],
    )
    client.get_waiter("stack_create_complete").wait(StackName=stack, WaiterConfig={"Delay": 0.2})
    found = client.describe_stack_resources(StackName=stack)["StackResources"]
    return {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in found}


def test_the_report_of_a_successful_run_is_on_the_bus(world, deployed, bus):
    name, queue = bus
    outputs = deployed(world.new_ai_secret(), EventBusName=name)
    run_by_schedule(world, outputs)
    event = wait_for_message(world, queue)
    assert (event["source"], event["detail-type"]) == ("lambda", "Lambda Function Invocation Result - Success")
    assert event["detail"]["requestContext"]["functionArn"] == f"{outputs['FunctionArn']}:$LATEST"
    assert event["detail"]["requestPayload"] == json.loads(SCHEDULED_EVENT)
    assert event["detail"]["responsePayload"]["targets"][0]["outcome"] == "rotated"


def test_the_failure_queue_takes_nothing_from_another_account(world, deployed, bus):
    name, _ = bus
    outputs = deployed(world.new_ai_secret(), EventBusName=name)
    events = world.client("events")
    [rule] = [one for one in events.list_rules(EventBusName=name)["Rules"] if "functionArn" in one["EventPattern"]]
    context = {"functionArn": f"{outputs['FunctionArn']}:$LATEST", "condition": "RetriesExhausted"}
    event = {"id": "1", "time": "2026-11-27T07:00:00Z", "region": "us-east-1", "resources": [], "detail-type": "Test"}
    event |= {"source": "lambda", "detail": {"requestContext": context}}
    for account, matches in ((ACCOUNT, True), ("111122223333", False)):
        sent = json.dumps({**event, "account": account})
        found = events.test_event_pattern(EventPattern=rule["EventPattern"], Event=sent)
        assert found["Result"] is matches, account


def test_a_failed_run_is_on_the_bus_and_in_the_failure_queue(world, deployed, bus):
    name, queue = bus
    outputs = deployed(str(uuid.uuid4()), EventBusName=name)
    run_by_schedule(world, outputs)
    event = wait_for_message(world, queue)
    assert (event["source"], event["detail-type"]) == ("lambda", "Lambda Function Invocation Result - Failure")
    kept = wait_for_message(world, outputs["FailureQueueUrl"])
    assert kept == event["detail"]
    assert kept["requestContext"]["condition"] == "RetriesExhausted"
    report = json.loads(kept["responsePayload"]["errorMessage"])
    assert report["targets"][0]["error"]["class"] == "not_found"


def test_successful_runs_and_failed_runs_of_others_are_not_in_the_failure_queue(world, deployed, bus):
    name, queue = bus
    outputs, others = deployed(world.new_ai_secret(), EventBusName=name), deployed(str(uuid.uuid4()), EventBusName=name)
    for each in (outputs, others):
        run_by_schedule(world, each)
    wait_for_message(world, others["FailureQueueUrl"])
    attributes = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = world.client("sqs").get_queue_attributes(QueueUrl=outputs["FailureQueueUrl"], AttributeNames=attributes)
    assert set(found["Attributes"].values()) == {"0"}
    sources = {wait_for_message(world, queue)["detail"]["requestContext"]["functionArn"] for _ in range(2)}
    assert sources == {f"{each['FunctionArn']}:$LATEST" for each in (outputs, others)}


def test_the_function_may_send_to_the_bus_and_the_queue_accepts_only_the_stacks_own_rule(world, deployed, bus):
    """The local AWS checks neither permission, so this looks at those that AWS needs."""
    name, _ = bus
    outputs = deployed(world.new_ai_secret(), EventBusName=name)
    policy = execution_policy(world, outputs)
    sends = policy["SendTheReports"]
    arn = f"arn:aws:events:us-east-1:{ACCOUNT}:event-bus/{name}"
    assert (sends["Action"], sends["Resource"]) == ("events:PutEvents", arn)
    assert "KeepWhatFailed" not in policy
    attributes = world.client("sqs").get_queue_attributes(
        QueueUrl=outputs["FailureQueueUrl"], AttributeNames=["Policy"]
    )["Attributes"]
    [allowed] = [s for s in json.loads(attributes["Policy"])["Statement"] if s["Effect"] == "Allow"]
    assert (allowed["Principal"], allowed["Action"]) == ({"Service": "events.amazonaws.com"}, "sqs:SendMessage")
    rule = allowed["Condition"]["ArnEquals"]["aws:SourceArn"]
    assert f":rule/{name}/{outputs['LogGroupName'].rpartition('/')[2].rpartition('-')[0]}-FailedRunsRule" in rule


@pytest.mark.long
def test_the_deployed_schedule_reports_to_the_bus(world, deployed, bus):
    name, queue = bus
    ai_secret = world.new_ai_secret()
    deployed(ai_secret, EventBusName=name, ScheduleExpression="rate(1 minute)")
    event = wait_for_message(world, queue, timeout=100)
    assert event["detail"]["requestPayload"]["source"] == "aws.events"
    assert event["detail"]["responsePayload"]["trigger"] == "schedule"
    assert world.braintrust.ai_secrets[ai_secret]["metadata"] != OLD_METADATA


def deploy_slack(world, bus, *stacks):
    """Deploys the example for each stack. Returns the topics, and the URL of a queue that gets what Slack would."""
    url, arn = new_queue(world, f"slack-{uuid.uuid4().hex[:8]}")
    channel = {"SlackWorkspaceId": "T07EA123LEP", "SlackChannelId": "C07EZ1ABC23"}
    topics = []
    for outputs in stacks:
        made = deploy_example(world, "slack", EventBusName=bus, FunctionArn=outputs["FunctionArn"], **channel)
        topics.append(made["Topic"])
        world.client("sns").subscribe(TopicArn=made["Topic"], Protocol="sqs", Endpoint=arn)
    return topics, url


def test_slack_gets_a_custom_notification_of_a_failed_run_only(world, deployed, bus):
    name, _ = bus
    outputs, good = deployed(str(uuid.uuid4()), EventBusName=name), deployed(world.new_ai_secret(), EventBusName=name)
    topics, url = deploy_slack(world, name, good, outputs)
    for each in (good, outputs):
        run_by_schedule(world, each)
    sent = wait_for_message(world, url)
    assert sent["TopicArn"] == topics[1]
    message = json.loads(sent["Message"])
    assert (message["version"], message["source"]) == ("1.0", "custom")
    assert outputs["FunctionName"] in message["content"]["title"]
    assert json.loads(message["content"]["description"])["targets"][0]["error"]["class"] == "not_found"
    assert "3 attempts (RetriesExhausted)" in message["content"]["nextSteps"][0]


def test_the_test_event_of_the_documentation_reaches_slack(world, deployed, bus):
    name, _ = bus
    outputs = deployed(world.new_ai_secret(), EventBusName=name)
    _, url = deploy_slack(world, name, outputs)
    [command] = re.findall(r"aws events put-events --entries .*", (ROOT / "docs/eventbridge.md").read_text())
    [entry] = json.loads(shlex.split(command.replace("<FunctionArn>", outputs["FunctionArn"]))[-1])
    world.client("events").put_events(Entries=[{**entry, "EventBusName": name}])
    message = json.loads(wait_for_message(world, url)["Message"])
    assert message["content"]["description"] == "This is a test."


class Jira(RecordingServer):
    """Jira's API, as far as the example uses it."""

    def call_name(self, request):
        return f"{request.method} {request.path}"

    def handle(self, request):
        return Reply(201, '{"id": "10000", "key": "OPS-1"}')


def test_a_ticket_is_opened_for_a_failed_run(world, deployed, bus):
    name, _ = bus
    outputs = deployed(str(uuid.uuid4()), EventBusName=name)
    jira = Jira().start()
    world.servers.append(jira)
    secret = f"jira-{uuid.uuid4().hex[:8]}"
    world.cloud.new_secret({"username": "bot@example.com", "password": 'to"ken'}, name=secret)
    deploy_example(
        world,
        "ticket",
        EventBusName=name,
        FunctionArn=outputs["FunctionArn"],
        Endpoint=f"{jira.url}/rest/api/2/issue",
        ProjectKey="OPS",
        SecretName=secret,
    )
    run_by_schedule(world, outputs)
    [request] = wait_for_requests(jira)
    assert request.call == "POST /rest/api/2/issue"
    assert request.headers["authorization"] == "Basic Ym90QGV4YW1wbGUuY29tOnRvImtlbg=="
    fields = request.json()["fields"]
    assert (fields["project"], fields["issuetype"]) == ({"key": "OPS"}, {"name": "Task"})
    assert outputs["FunctionName"] in fields["summary"] and "RetriesExhausted" in fields["summary"]
    assert json.loads(fields["description"])["targets"][0]["outcome"] == "failed"


def wait_for_requests(server):
    until = time.monotonic() + 60
    while not server.requests and time.monotonic() < until:
        time.sleep(0.1)
    return server.requests
