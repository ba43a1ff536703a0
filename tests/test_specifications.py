"""The function's requests conform to AWS's own models and to Braintrust's specification.

Every test that uses the fixture `world` checks that at its end. These tests show that the checks work.
"""

import json

import pytest
from support.braintrust_openapi import SPECIFICATION, openapi
from support.events import scheduled_run
from support.http_messages import RecordedRequest, Reply
from support.kinds import KINDS
from support.reports import outcome

FORM = "application/x-www-form-urlencoded"
JSON = "application/x-amz-json-1.1"
MALFORMED = [
    ("iam", "CreateAccessKey", "Version=2010-05-08&UserName=a%20b", ".UserName doesn't match"),
    ("iam", "CreateAccessKey", "Version=2010-05-08&Name=a", "Name is unknown"),
    ("iam", "CreateAccessKey", "Version=2011-06-15&UserName=a", "Version is not 2010-05-08"),
    ("iam", "DeleteAccessKey", "Version=2010-05-08&UserName=a", ".AccessKeyId is missing"),
    ("iam", "UpdateAccessKey", "Version=2010-05-08&AccessKeyId=AKIAIOSFODNN7EXAMPLE&Status=Off", ".Status is none"),
    ("iam", "ListNothing", "Version=2010-05-08", "there is no such operation"),
    ("sts", "AssumeRole", "Version=2011-06-15&RoleArn=x&RoleSessionName=xy", ".RoleArn is not between 20 and 2048"),
    ("secretsmanager", "GetSecretValue", "{}", ".SecretId is missing"),
    ("secretsmanager", "PutSecretValue", '{"SecretId":"x","SecretString":""}', ".SecretString is not between 1 and"),
    ("secretsmanager", "PutSecretValue", '{"SecretId":"x","VersionStages":"AWSPENDING"}', ".VersionStages"),
]
AI_SECRET = {
    "id": "5f1c7a6e-0000-4000-8000-000000000000",
    "org_id": "5f1c7a6e-0000-4000-8000-000000000001",
    "name": "x",
}
BREAKS_THE_SPECIFICATION = [
    ("GET", "/v1/ai_secret?name=x", None, {"objects": []}, "the parameter name is unknown"),
    ("GET", "/v1/ai_secret?limit=many", None, {"objects": []}, "the parameter limit is invalid"),
    ("GET", "/v1/ai_secret", None, {"objects": {}}, "$.objects breaks the rule"),
    ("GET", "/v1/ai_secrets", None, {}, "the specification has no such operation"),
    ("POST", f"/v1/ai_secret/{AI_SECRET['id']}", {}, {}, "the specification has no such operation"),
    ("PATCH", f"/v1/ai_secret/{AI_SECRET['id']}", {"metadata": "x"}, AI_SECRET, "$.metadata breaks the rule"),
    ("PATCH", f"/v1/ai_secret/{AI_SECRET['id']}", {"metadatas": {}}, AI_SECRET, "field metadatas is unknown"),
    ("PATCH", "/v1/ai_secret/x", {}, AI_SECRET, "the parameter ai_secret_id is invalid"),
    ("PATCH", f"/v1/ai_secret/{AI_SECRET['id']}", {}, AI_SECRET | {"created": "today"}, "$.created breaks the rule"),
]
needs_the_specification = pytest.mark.skipif(openapi() is None, reason=f"{SPECIFICATION} isn't there")


@pytest.mark.parametrize(("service", "action", "parameters", "violation"), MALFORMED)
def test_a_request_that_aws_does_not_allow_is_noticed(cloud, service, action, parameters, violation):
    in_json = service == "secretsmanager"
    headers = {
        "authorization": f"AWS4-HMAC-SHA256 Credential=AKIA/20260101/us-east-1/{service}/aws4_request, Signature=0",
        "user-agent": "aws-sdk-rust/1",
        "content-type": JSON if in_json else FORM,
        "x-amz-target": f"secretsmanager.{action}",
    }
    body = parameters if in_json else f"Action={action}&{parameters}"
    request = RecordedRequest("POST", "/", headers, body.encode(), call=f"{service}:{action}")
    [found] = cloud.aws.models.violations(request)
    assert violation in found


@pytest.mark.parametrize("kind", KINDS)
def test_every_request_to_aws_is_checked(world, kind):
    models, target = world.aws.models, world.new_staged_target(kind, world.new_ai_secret())
    before = models.checked
    assert outcome(world.new_function(target).invoke(scheduled_run())) == "rotated"
    sent = [request.call.partition(":")[0] for request in world.aws_requests()]
    assert models.checked - before == len([service for service in sent if service != "bedrock"]) > 0


@needs_the_specification
@pytest.mark.parametrize(("method", "target", "body", "answer", "violation"), BREAKS_THE_SPECIFICATION)
def test_what_braintrusts_specification_does_not_allow_is_noticed(method, target, body, answer, violation):
    headers = {"user-agent": "bedrock-braintrust-rotator/1", "content-type": "application/json"}
    request = RecordedRequest(method, target, headers, b"" if body is None else json.dumps(body).encode())
    [found] = openapi().violations(request, Reply(200, json.dumps(answer)))
    assert violation in found


@needs_the_specification
@pytest.mark.parametrize("kind", KINDS)
def test_every_request_to_braintrust_and_its_answer_are_checked(world, kind):
    ai_secret = world.new_ai_secret("AWS Bedrock")
    target = world.new_staged_target(kind, {"name": "AWS Bedrock", "org_name": "Acme"})
    before = openapi().checked
    assert outcome(world.new_function(target).invoke(scheduled_run())) == "rotated"
    # The specification may lack the organizations.
    described = [request for request in world.braintrust.requests if request.path != "/v1/organization"]
    assert openapi().checked - before == len(described) > 0
    assert world.has_working_credentials(ai_secret)
