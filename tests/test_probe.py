"""New credentials are proven against Bedrock before anything is written."""

import pytest
from support.aws_replies import json_error
from support.http_messages import Reply
from support.kinds import KINDS
from support.reports import failed_error, outcome

GET = "GET /v1/ai_secret/{id}"
PATCH = "PATCH /v1/ai_secret/{id}"
PROBE = "ListFoundationModels"
CONVERSE = "bedrock:Converse"
MODELS = ["anthropic.claude-3-haiku-20240307-v1:0", "amazon.nova-micro-v1:0"]
NO_ACCESS = json_error(
    403, "AccessDeniedException", "You don't have access to the model with the specified model ID."
)
HTML = Reply(200, b"<html><body>Sign in to your proxy</body></html>", content_type="text/html; charset=utf-8")


def test_an_ai_secret_that_changed_while_the_probe_waited_is_not_written(world):
    ai_secret = world.new_ai_secret()
    world.aws.new_credentials_unknown_for = 4
    function = world.new_function(world.target(ai_secret))

    def changed(request):
        if request.call == "bedrock:ListFoundationModels":
            moved = {"auth_type": "assume_role", "role_arn": "arn:aws:iam::000000000000:role/braintrust"}
            world.braintrust.ai_secrets[ai_secret]["metadata"].update(moved)
        return False

    world.aws.fail(changed, None)
    result = function.invoke({"action": "rotate"})
    assert outcome(result) == "uses_assume_role"
    assert world.braintrust.ai_secrets[ai_secret]["metadata"]["auth_type"] == "assume_role"
    assert world.patches() == []


def test_credentials_that_are_not_known_yet_are_waited_for(world):
    ai_secret = world.new_ai_secret()
    world.aws.new_credentials_unknown_for = 3
    world.rotate(world.target(ai_secret))
    asked = world.aws_requests("bedrock:ListFoundationModels")
    assert asked[0].status == 403 and asked[-1].status == 200
    assert world.has_working_credentials(ai_secret)


def test_credentials_that_stay_unknown_are_never_written(world):
    target = world.target(world.new_ai_secret())
    before = world.braintrust.snapshot()
    world.aws.new_credentials_unknown_for = 60
    report = world.fail_to_rotate(target, timeout=6)
    failed_error(report, "invalid_credentials", "bedrock", PROBE, "UnrecognizedClientException")
    assert world.braintrust.snapshot() == before


@pytest.mark.long
def test_a_page_of_html_in_place_of_bedrock_proves_nothing(world):
    target = world.target(world.new_ai_secret())
    before = world.braintrust.snapshot()
    world.aws.fail("bedrock:ListFoundationModels", HTML, times=None)
    failed_error(world.fail_to_rotate(target), "unavailable", "bedrock", PROBE, "text/html")
    assert world.braintrust.snapshot() == before


def warnings(report):
    return report["targets"][0].get("warnings", [])


def of_model(model):
    return lambda request: request.call == CONVERSE and model in request.path


@pytest.fixture
def converse_role(world):
    # AWS requires bedrock:InvokeModel, and ministack requires the action that is named after the call.
    return world.cloud.new_role(allow=["bedrock:InvokeModel", "bedrock:Converse", "bedrock:CallWithBearerToken"])


@pytest.mark.parametrize(
    ("status", "code", "message", "attempts"),
    [
        (429, "ThrottlingException", "Too many tokens per day, please wait before trying again.", 3),
        (429, "ModelNotReadyException", "Model is not ready.", 3),
        (404, "ResourceNotFoundException", "Access denied. This Model is marked by provider as Legacy.", 1),
        (400, "ValidationException", "The maximum tokens you requested are too few.", 1),
        (424, "ModelErrorException", "The model failed.", 1),
    ],
)
def test_a_model_that_does_not_answer_now_does_not_stop_the_rotation(
    world, converse_role, status, code, message, attempts
):
    ai_secret = world.new_ai_secret()
    world.aws.fail(CONVERSE, json_error(status, code, message), times=None)
    report = world.rotate(world.target(ai_secret, role_arn=converse_role, probe={"converse": MODELS[0]}))
    [warning] = warnings(report)
    assert MODELS[0] in warning and f"{status} {code}" in warning
    assert len(world.aws_requests(CONVERSE)) == attempts
    assert world.braintrust.ai_secrets[ai_secret]["metadata"]["access_key"] != "ASIAOLD"


def test_a_model_that_is_busy_for_a_moment_is_proven(world, converse_role):
    world.aws.fail(CONVERSE, json_error(429, "ThrottlingException", "Too many requests"), times=2)
    report = world.rotate(world.target(world.new_ai_secret(), role_arn=converse_role, probe={"converse": MODELS[0]}))
    assert warnings(report) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_without_access_is_a_permission_error_at_once(world, unchanged, converse_role, kind):
    target = world.new_staged_target(kind, world.new_ai_secret(), probe={"converse": MODELS[0]})
    if "role_arn" in target:
        target["role_arn"] = converse_role
    unchanged()
    world.aws.fail(CONVERSE, NO_ACCESS, times=None)
    error = failed_error(world.fail_to_rotate(target), "permission", "bedrock", "Converse", "AccessDeniedException")
    assert "You don't have access to the model" in error["aws"]["message"]
    assert len(world.aws_requests(CONVERSE)) == 1


def test_of_several_models_one_that_works_is_enough(world, converse_role):
    ai_secret = world.new_ai_secret()
    world.aws.fail(of_model(MODELS[1]), NO_ACCESS, times=None)
    report = world.rotate(world.target(ai_secret, role_arn=converse_role, probe={"converse": MODELS}))
    [warning] = warnings(report)
    assert MODELS[1] in warning and MODELS[0] not in warning
    assert {request.path.split("/")[2] for request in world.aws_requests(CONVERSE)} == set(MODELS)
    assert world.braintrust.ai_secrets[ai_secret]["metadata"]["access_key"] != "ASIAOLD"


def test_several_models_that_are_all_refused_are_a_permission_error(world, unchanged, converse_role):
    target = world.target(world.new_ai_secret(), role_arn=converse_role, probe={"converse": MODELS})
    unchanged()
    world.aws.fail(CONVERSE, NO_ACCESS, times=None)
    failed_error(world.fail_to_rotate(target), "permission", "bedrock", "Converse", "AccessDeniedException")


def test_the_check_names_a_model_that_is_not_proven(world, converse_role):
    target = world.target(world.new_ai_secret(), role_arn=converse_role, probe={"converse": MODELS})
    world.aws.fail(of_model(MODELS[1]), json_error(429, "ThrottlingException", "Too many tokens"), times=None)
    [checked] = world.new_function(target).invoke({"action": "check"}).body["targets"]
    [line] = [line for line in checked["lines"] if "call Bedrock" in line["what"]]
    assert line["result"] == "warning" and MODELS[1] in line["note"]


def test_the_probe_asks_for_json(world):
    world.rotate(world.target(world.new_ai_secret()))
    [request] = world.aws_requests("bedrock:ListFoundationModels")
    assert request.headers["accept"] == "application/json"
