"""The template, deployed by sam into a local AWS that enforces IAM and signatures: wide enough, and no wider."""

import json
import subprocess
import time
import uuid

import pytest
from conftest import OLD, ROOT
from local.deployment import deploy, invoke
from samcli.yamlhelper import yaml_parse

TEMPLATE = ROOT / ".aws-sam/build/template.yaml"
SCHEDULE = (ROOT / "events/schedule.json").read_text()

pytestmark = pytest.mark.xdist_group("deployed")


def run(command, environment):
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.fixture
def deployed(bench, tmp_path):
    """Deploys the template after `change(resources)`, for an ai_secret; answers its outputs."""

    def deployed(ai_secret, change=lambda resources: None, **parameters):
        template = yaml_parse(TEMPLATE.read_text())
        change(template["Resources"])
        template["Resources"]["RotatorFunction"]["Properties"]["CodeUri"] = str(TEMPLATE.parent / "RotatorFunction")
        changed = tmp_path / "template.json"
        changed.write_text(json.dumps(template))
        parameters = {
            "BraintrustApiKey": bench.api_key,
            "BraintrustApiUrl": bench.braintrust.url,
            "AiSecretId": ai_secret,
            **parameters,
        }
        given = {name: value for name, value in parameters.items() if value is not None}
        return deploy(bench.stack, changed, f"rotator-{uuid.uuid4().hex[:8]}", given, run)

    return deployed


def test_the_deployed_template_rotates(bench, deployed):
    ai_secret = bench.ai_secret()
    outputs = deployed(ai_secret)
    report, failed = invoke(bench.stack, outputs["FunctionName"], SCHEDULE)
    assert not failed, report
    assert bench.holds_working_credentials(ai_secret)
    assert outputs["BedrockRoleArn"] in str([request.body for request in bench.aws_requests("sts:AssumeRole")]).replace(
        "%3A", ":"
    ).replace("%2F", "/")


def test_a_name_an_organization_an_external_id_and_a_region_reach_the_function(bench, deployed):
    bench.braintrust.add_key(bench.api_key, orgs=("Acme", "Acme EU"))
    bench.ai_secret("AWS Bedrock")
    ai_secret = bench.ai_secret("AWS Bedrock", org_name="Acme EU")
    outputs = deployed(
        ai_secret,
        AiSecretId=None,
        AiSecretName="AWS Bedrock",
        BraintrustOrgName="Acme EU",
        ExternalId="from-braintrust",
        BedrockRegion="eu-central-1",
        DurationSeconds="900",
        TargetName="eu",
    )
    report, failed = invoke(bench.stack, outputs["FunctionName"], SCHEDULE)
    assert not failed, report
    [target] = report["targets"]
    assert (target["name"], target["region"]) == ("eu", "eu-central-1")
    assert bench.braintrust.ai_secrets[ai_secret]["metadata"]["region"] == "eu-central-1"
    assert bench.holds_working_credentials(ai_secret)
    [request] = bench.aws_requests("sts:AssumeRole")
    assert b"ExternalId=from-braintrust" in request.body and b"DurationSeconds=900" in request.body


def test_an_existing_role_and_an_existing_secret_are_used(bench, deployed):
    ai_secret = bench.ai_secret()
    role = bench.stack.role(trust="*")
    outputs = deployed(
        ai_secret, BedrockRoleArn=role, BraintrustApiKey=None, BraintrustApiKeySecretArn=bench.api_key_secret
    )
    report, failed = invoke(bench.stack, outputs["FunctionName"], SCHEDULE)
    assert not failed, report
    assert (outputs["BedrockRoleArn"], outputs["BraintrustApiKeySecretArn"]) == (role, bench.api_key_secret)
    assert bench.holds_working_credentials(ai_secret)


def test_the_deployed_schedule_fires(bench, deployed):
    ai_secret = bench.ai_secret()
    deployed(ai_secret, ScheduleExpression="rate(1 minute)")
    until = time.monotonic() + 100
    while bench.braintrust.ai_secrets[ai_secret]["metadata"] == OLD:
        assert time.monotonic() < until, "the schedule did not fire"
        time.sleep(0.5)
    assert bench.holds_working_credentials(ai_secret)


def without(statement, policy):
    """A change that takes one statement out of the policy that `policy(resources)` finds."""

    def change(resources):
        statements = policy(resources)["Statement"]
        assert statement in [found["Sid"] for found in statements]
        statements[:] = [found for found in statements if found["Sid"] != statement]

    return change


def of_the_function(resources):
    return resources["ExecutionPolicy"]["Properties"]["PolicyDocument"]


def of_the_role(resources):
    return resources["BedrockRole"]["Properties"]["Policies"][0]["PolicyDocument"]


@pytest.mark.parametrize(
    ("statement", "policy", "service", "call"),
    [
        ("AssumeTheBedrockRole", of_the_function, "sts", "AssumeRole"),
        ("ReadTheBraintrustApiKey", of_the_function, "secrets_manager", "GetSecretValue"),
        ("ProveTheCredentials", of_the_role, "bedrock", "ListFoundationModels"),
    ],
)
def test_a_policy_without_one_statement_is_too_narrow(bench, deployed, statement, policy, service, call):
    ai_secret = bench.ai_secret()
    before = bench.braintrust.snapshot()
    outputs = deployed(ai_secret, without(statement, policy))
    report, failed = invoke(bench.stack, outputs["FunctionName"], SCHEDULE)
    assert failed
    error = report["targets"][0]["error"]
    assert (error["class"], error["service"], error["call"]) == ("permission", service, call)
    assert bench.braintrust.snapshot() == before


def test_the_function_may_assume_no_other_role(bench, deployed):
    other = bench.stack.role(trust="*")

    def aimed_at_another_role(resources):
        variables = resources["RotatorFunction"]["Properties"]["Environment"]["Variables"]
        target = bench.target(ai_secret, role_arn=other)
        variables["TARGETS"] = json.dumps([target])

    ai_secret = bench.ai_secret()
    outputs = deployed(ai_secret, aimed_at_another_role)
    report, failed = invoke(bench.stack, outputs["FunctionName"], SCHEDULE)
    assert failed
    assert report["targets"][0]["error"]["class"] == "permission"
