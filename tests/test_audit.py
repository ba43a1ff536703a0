"""Which requests issued or changed credentials: the report, the names of sessions, and the queries of docs/audit.md."""

import datetime
import json
import re

import pytest
import sqlglot
from sqlglot import expressions
from support.documents import blocks
from support.faults import DropBefore
from support.kinds import KINDS, USER_BASED
from support.local_cloud import REGION
from support.local_trail import LocalTrail
from support.paths import ROOT
from support.reports import failed_error
from support.upstream import form

PAGE = ROOT / "docs/audit.md"
CHANGES = re.compile(r"(sts:AssumeRole|iam:(Create|Update|Delete).*|secretsmanager:(PutSecretValue|Update.*))")
SESSION_ACTIONS = ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"]
NAMES = {
    "source_identity": "rotator-{target}",
    "session_tags": {"target": "{target}", "trigger": "{trigger}"},
}
SCHEDULED = json.loads((ROOT / "events/schedule.json").read_text())
# https://docs.aws.amazon.com/awscloudtrail/latest/userguide/query-supported-event-schemas.html
COLUMNS = set(
    "eventversion useridentity eventtime eventsource eventname awsregion sourceipaddress useragent errorcode "
    "errormessage requestparameters responseelements additionaleventdata requestid eventid readonly resources "
    "eventtype apiversion managementevent recipientaccountid sharedeventid annotation vpcendpointid "
    "vpcendpointaccountid serviceeventdetails addendum edgedevicedetails insightdetails eventcategory tlsdetails "
    "sessioncredentialfromconsole".split()
)
IDENTITY = {"arn", "accountid", "accesskeyid", "username", "type", "sessioncontext.sourceidentity"}
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax.html
COMMANDS = set("fields display filter stats sort limit parse dedup pattern diff unmask unnest lookup anomaly".split())


@pytest.fixture
def trail(world):
    trail = LocalTrail(world.cloud)
    yield trail
    trail.stop()


def changes(world) -> list[dict]:
    """What the report must say about the function's requests."""
    made = [request for request in world.aws_requests() if CHANGES.fullmatch(request.call)]
    failed = [{"failed": True} if request.status >= 400 else {} for request in made]
    return [{"call": it.call, "request_id": it.id} | failed for it, failed in zip(made, failed, strict=True)]


def new_target(world, kind, **fields):
    ai_secret = world.new_ai_secret_of_any_name()
    return world.new_staged_target(kind, ai_secret, **fields) if kind in USER_BASED else world.target(ai_secret, kind=kind)


def new_named_role(world, actions, **allow):
    statement = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": actions}
    return world.cloud.new_role(trust={"Version": "2012-10-17", "Statement": [statement]}, **allow)


# The report


@pytest.mark.parametrize("kind", KINDS)
def test_the_report_has_the_requests_that_issued_and_changed_credentials(world, kind):
    target = new_target(world, kind)
    function = world.new_function(target)
    for _ in range(2):
        world.aws.requests.clear()
        [found] = function.invoke({"action": "rotate", "force": True}).body["targets"]
        assert found["outcome"] == "rotated"
        assert found["aws_requests"] == changes(world) != []


def test_retiring_a_key_is_reported_with_its_requests(world):
    target = new_target(world, "access_key")
    function = world.new_function(target)
    for _ in range(2):
        function.invoke({"action": "rotate", "force": True})
    world.let_time_pass(target, datetime.timedelta(hours=1))
    world.aws.requests.clear()
    [found] = function.invoke({"action": "rotate"}).body["targets"]
    assert [retired["how"] for retired in found["retired"]] == ["deleted"]
    assert found["aws_requests"] == changes(world)
    assert "iam:DeleteAccessKey" in [request["call"] for request in found["aws_requests"]]


def test_a_run_that_issues_and_changes_nothing_reports_no_requests(world):
    target = new_target(world, "access_key")
    function = world.new_function(target)
    function.invoke({"action": "rotate"})
    for event in ({"action": "rotate"}, {"action": "rotate", "force": True, "dry_run": True}):
        [found] = function.invoke(event).body["targets"]
        assert found["outcome"] in ("not_due", "would_rotate") and "aws_requests" not in found


def test_a_failed_run_reports_what_it_has_changed_and_what_was_refused(world):
    target = new_target(world, "access_key")
    with world.execution_policy(deny=["secretsmanager:PutSecretValue"]):
        [found] = world.fail_to_rotate(target)["targets"]
    made = changes(world)
    assert [request["call"] for request in made] == [
        "iam:CreateAccessKey",
        "secretsmanager:PutSecretValue",
        "iam:DeleteAccessKey",
    ]
    assert found["aws_requests"] == made and [request.get("failed") for request in made] == [None, True, None]


def test_a_request_without_an_answer_has_no_id(world):
    world.aws.fail("sts:AssumeRole", DropBefore(), times=None)
    [found] = world.fail_to_rotate(world.target(world.new_ai_secret()))["targets"]
    assert found["aws_requests"] == [{"call": "sts:AssumeRole", "failed": True}]


# The names of sessions


@pytest.mark.parametrize(
    "event, trigger",
    [({"action": "rotate"}, "action"), ({"action": "check"}, "action"), (SCHEDULED, "schedule")],
    ids=["rotate", "check", "schedule"],
)
def test_sessions_are_named_after_the_target_and_the_trigger(world, event, trigger):
    role, ai_secret = new_named_role(world, SESSION_ACTIONS), world.new_ai_secret()
    world.new_function(world.target(ai_secret, name="prod-us", role_arn=role, **NAMES)).invoke(event)
    [request] = world.aws_requests("sts:AssumeRole")
    sent = form(request)
    assert (sent["RoleSessionName"], sent["SourceIdentity"]) == ("braintrust-prod-us", "rotator-prod-us")
    tags = {sent[f"Tags.member.{n}.Key"]: sent[f"Tags.member.{n}.Value"] for n in (1, 2)}
    assert tags == {"target": "prod-us", "trigger": trigger}


@pytest.mark.parametrize(
    "missing, field", [("sts:TagSession", "session_tags"), ("sts:SetSourceIdentity", "source_identity")]
)
def test_a_trust_policy_without_one_of_the_actions_refuses_that_field_alone(world, missing, field):
    role = new_named_role(world, [action for action in SESSION_ACTIONS if action != missing])
    ai_secret = world.new_ai_secret()
    refused = world.target(ai_secret, role_arn=role, **NAMES)
    error = failed_error(world.fail_to_rotate(refused), "permission", "sts", "AssumeRole")
    assert missing in error["aws"]["message"] and f"AWS denies {missing}" in error["remedy"]
    [checked] = world.new_function(refused).invoke({"action": "check"}).body["targets"]
    [line] = [line for line in checked["lines"] if line["what"].startswith("assume the role")]
    assert (line["result"], missing in line["error"]["remedy"]) == ("failed", True)
    world.rotate(world.target(ai_secret, role_arn=role, **{k: v for k, v in NAMES.items() if k != field}))
    assert world.has_working_credentials(ai_secret)


# The queries


def queries() -> list[str]:
    return blocks(PAGE, "sql")


def columns_of(sql: str) -> list[str]:
    parsed = sqlglot.parse_one(sql, dialect="trino")
    named = {alias.alias for alias in parsed.find_all(expressions.Alias)}
    found = (".".join(part.name for part in column.parts) for column in parsed.find_all(expressions.Column))
    return [column.lower() for column in found if column not in named]


def test_the_sql_is_that_of_trino_and_names_columns_of_cloudtrail_lake():
    assert len(queries()) == 3
    for sql in queries():
        for column in columns_of(sql):
            name, _, rest = column.partition(".")
            assert name in COLUMNS and (not rest or (name == "useridentity" and rest in IDENTITY)), column


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_query_finds_the_run_that_issued_credentials(world, trail, kind):
    target = new_target(world, kind)
    report = world.rotate(target)["targets"][0]
    # The ID of a short-term API key is that of the session that signed it.
    rows = trail.query(queries()[0].replace("ASIAIOSFODNN7EXAMPLE", report["credential_id"].rpartition("/")[2]))
    [issued] = [r for r in report["aws_requests"] if r["call"].startswith(("sts:", "iam:Create"))]
    assert [(row["eventName"], row["requestID"]) for row in rows] == [
        (issued["call"].partition(":")[2], issued["request_id"])
    ]
    assert rows[0]["session_name"] == (None if kind in USER_BASED else "braintrust-prod")


def test_the_second_query_finds_who_called_bedrock_with_the_credentials_of_a_target(world, trail):
    role = new_named_role(world, SESSION_ACTIONS, allow=["bedrock:InvokeModel", "bedrock:Converse"])
    options = {"role_arn": role, "probe": {"converse": "some.model-v1:0"}}
    reports = [
        world.rotate(world.target(world.new_ai_secret_of_any_name(), name=name, **names, **options))["targets"][0]
        for name, names in [("prod-us", NAMES), ("prod-eu", NAMES), ("us", {})]
    ]
    for name, report in zip(["prod-us", "prod-eu", "us"], reports, strict=True):
        [row] = trail.query(queries()[1].replace("prod-us", name))
        assert (row["access_key_id"], row["model"]) == (report["credential_id"], "some.model-v1:0")
        assert (row["sourceIPAddress"], row["eventName"], row["calls"]) == ("127.0.0.1", "Converse", 1)


@pytest.mark.parametrize("kind", ["temporary", "access_key"])
def test_the_last_query_finds_the_changes_of_the_reports_and_those_of_others(world, trail, kind):
    target = new_target(world, kind)
    other = world.rotate(new_target(world, "temporary") | {"name": "other"})["targets"][0]
    reported = [world.rotate(target, event={"action": "rotate", "force": True})["targets"][0] for _ in range(2)]
    sql = queries()[2].replace("'%bedrock-prod-us%'", f"'{target.get('secret_id', 'none')}'")
    sql = sql.replace("prod-us", "prod").replace("'braintrust-bedrock'", f"'{target.get('user_name', 'none')}'")
    expected = [request["request_id"] for report in reported for request in report["aws_requests"]]
    assert [row["requestID"] for row in trail.query(sql)] == expected
    assert not set(expected) & {request["request_id"] for request in other["aws_requests"]}
    if kind == "access_key":
        world.end_key_by_hand(target, reported[-1]["credential_id"], "deactivated")
        [added] = [row for row in trail.query(sql) if row["requestID"] not in expected]
        assert added["eventName"] == "UpdateAccessKey"


def insights() -> list[list[tuple[str, str]]]:
    """The commands of each query, with their arguments."""
    found = [re.split(r"^\| |\n\| ", text.strip()) for text in blocks(PAGE, "text")]
    return [[tuple(command.strip().split(" ", 1)) for command in commands] for commands in found]


def test_the_queries_of_logs_insights_have_its_commands_only():
    assert len(insights()) == 4
    for commands in insights():
        assert [name for name, _ in commands if name not in COMMANDS] == []


def fields_of(commands) -> set[str]:
    """The fields that a query names, without its strings, its regular expressions, and the names that it defines."""
    text = " ".join(arguments for _, arguments in commands)
    text = re.sub(r'"[^"]*"|/(?:\\/|[^/])*/', "", text)
    own = set(re.findall(r"(?:as|into) (\w+)", text)) - {"report", "target", "request"}
    text = re.sub(r"\b(count\(\*\)|jsonParse\(@message\)|as|in|by|into|like|desc|and)(?=\W|$)", " ", text)
    return {name for name in re.findall(r"@?[A-Za-z][\w.]*", text)} - own


def value_at(value, path: str):
    for name in path.split("."):
        value = value[name]
        value = value[0] if isinstance(value, list) else value
    return value


def test_the_queries_of_logs_insights_name_fields_of_events_and_of_reports(world, trail):
    role = new_named_role(world, SESSION_ACTIONS, allow=["bedrock:InvokeModel", "bedrock:Converse"])
    target = world.target(world.new_ai_secret(), role_arn=role, probe={"converse": "some.model-v1:0"}, **NAMES)
    report = world.rotate(target)
    [assumed] = [e for e in trail.events if e["eventName"] == "AssumeRole" and e["requestParameters"].get("tags")]
    [called] = [e for e in trail.events if e["eventName"] == "Converse"]
    assumed["userIdentity"]["arn"] = "CloudTrail has it for the function's own session, which the local AWS made before"
    line = report | {"report": report, "target": report["targets"][0]}
    line["request"] = line["target"]["aws_requests"][0]
    own = {"@timestamp", "@message"}
    for commands, source in zip(insights(), [assumed, line, called, line], strict=True):
        for field in fields_of(commands) - own - {"report", "target", "request"}:
            assert value_at(source, field) is not None, field


def test_the_examples_are_shaped_as_the_report_and_as_an_event(world, trail):
    examples = [json.loads(text) for text in blocks(PAGE, "json")]
    role = new_named_role(world, SESSION_ACTIONS)
    report = world.rotate(world.target(world.new_ai_secret(), role_arn=role, region=REGION, **NAMES))
    [event] = [e for e in trail.events if e["eventName"] == "AssumeRole" and e["requestParameters"].get("tags")]
    assert set(examples[0]) - {"timestamp", "level"} <= set(report)
    assert set(examples[0]["targets"][0]) <= set(report["targets"][0])
    assert set(examples[0]["targets"][0]["aws_requests"][0]) == set(report["targets"][0]["aws_requests"][0])
    assert set(examples[1]["requestParameters"]) <= set(event["requestParameters"])
    assert set(examples[1]) <= set(event)
    assert examples[2] == NAMES
