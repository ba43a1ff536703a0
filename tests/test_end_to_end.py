"""With `end_to_end`, a request for one token through Braintrust proves new credentials after they were written."""

import json
import urllib.request

import pytest
from support.aws_replies import json_error
from support.end_to_end import COMPLETION, END_TO_END, MODEL
from support.events import FORCED, ROLLBACK, scheduled_run
from support.faults import Delay, DropAfter, DropBefore, Endless, Kill, Truncate
from support.http_messages import Reply
from support.kinds import KINDS, ROLE_BASED, USER_BASED
from support.reports import failed_error, outcome
from support.rotated_twice import RotatedTwice
from support.staged_values import secret_of
from support.stepped_rotation import SteppedRotation
from support.stopped_run import kill_function
from support.upstream import signer

CONVERSE = "bedrock:Converse"
PATCH = "PATCH /v1/ai_secret/{id}"
DENIED = json_error(403, "AccessDeniedException", "User: x is not authorized to perform: bedrock:InvokeModel")
UNRECOGNIZED = json_error(403, "UnrecognizedClientException", "The security token included in the request is invalid.")
COMPLETED = json.dumps({"choices": [{"message": {"content": "."}}]})


def asked(world):
    return [request for request in world.braintrust.requests if request.call == COMPLETION]


def result_of(report):
    [ai_secret] = report["targets"][0]["ai_secrets"]
    return ai_secret.get("end_to_end")


def unproven(report):
    """The reason, which must also be in a warning."""
    result = result_of(report)
    assert result["result"] == "unproven", report
    assert any(result["reason"] in warning for warning in report["targets"][0]["warnings"]), report
    return result["reason"]


class Rotated:
    """A target of any kind whose first credentials are in Braintrust."""

    def __init__(self, world, kind, **options):
        self.world, self.ai_secret = world, world.new_ai_secret()
        self.target = world.new_staged_target(kind, self.ai_secret, end_to_end=END_TO_END)
        self.function = world.new_function(self.target, **options)
        assert outcome(self.function.invoke(FORCED)) == "rotated"
        self.first = world.staged_value(self.target)
        world.braintrust.requests.clear()

    def in_braintrust(self):
        return self.world.braintrust.credentials(self.ai_secret)["secret"]

    def fail(self):
        """The report of a forced run, which must fail and restore the first credentials."""
        result = self.function.invoke(FORCED)
        assert not result.ok, result.body
        self.is_restored()
        return result.report_in_error()

    def has_newer_ones(self):
        """Whether Braintrust holds working credentials, which are current, instead of the first ones."""
        current = self.world.staged_value(self.target)
        is_held = self.in_braintrust() == secret_of(current) != secret_of(self.first)
        return is_held and self.world.has_working_credentials(self.ai_secret)

    def is_restored(self):
        assert self.in_braintrust() == secret_of(self.first)
        assert self.world.staged_value(self.target) == self.first
        assert self.world.has_working_credentials(self.ai_secret)


def test_a_projects_own_provider_stays_unproven_beside_an_ai_secret_that_is_proven(world):
    ai_secret, entry = world.new_ai_secret(), world.new_project_provider()
    report = world.rotate(world.target(ai_secret, entry, end_to_end=END_TO_END))
    proven, provider = report["targets"][0]["ai_secrets"]
    assert proven["end_to_end"] == {"result": "proven"} and provider["end_to_end"]["result"] == "unproven"
    assert "can't be named in a request" in provider["end_to_end"]["reason"] and len(asked(world)) == 1
    assert any(provider["end_to_end"]["reason"] in warning for warning in report["targets"][0]["warnings"])
    assert world.project_can_call_bedrock(entry["project"])


@pytest.mark.parametrize("kind", KINDS)
def test_new_credentials_are_proven_through_braintrust(world, kind):
    target = world.new_staged_target(kind, world.new_ai_secret(), end_to_end=END_TO_END)
    assert result_of(world.rotate(target)) == {"result": "proven"}
    [request] = asked(world)
    assert request.json() == {"model": MODEL, "messages": [{"role": "user", "content": "."}], "max_tokens": 1}
    sent = {name: request.headers.get(f"x-bt-{name}") for name in ("use-cache", "use-creds-cache", "endpoint-name")}
    assert sent == {"use-cache": "never", "use-creds-cache": "never", "endpoint-name": "AWS Bedrock"}


def test_credentials_that_are_not_staged_are_proven_too(world):
    target = world.target(world.new_ai_secret(), end_to_end=END_TO_END)
    assert result_of(world.rotate(target)) == {"result": "proven"}


def test_nothing_is_sent_unless_the_target_asks_for_it(world):
    report = world.rotate(world.target(world.new_ai_secret()))
    assert result_of(report) is None and asked(world) == []


def test_a_dry_run_and_a_check_send_nothing(world):
    function = world.new_function(world.target(world.new_ai_secret(), end_to_end=END_TO_END))
    assert outcome(function.invoke({"action": "rotate", "dry_run": True})) == "would_rotate"
    assert [result for _, result in checked(function)] == ["unknown"]
    assert asked(world) == []


def checked(function):
    """What the check says about the proof: each line's subject and result."""
    [target] = function.invoke({"action": "check"}).body["targets"]
    return [(line["what"], line["result"]) for line in target["lines"] if line["what"].startswith(f"call {MODEL}")]


def test_a_check_warns_of_destinations_that_no_request_can_name(world):
    entry, named, unnamed = world.new_project_provider(), world.new_ai_secret(), world.new_ai_secret("Größe")
    target = world.new_staged_target("temporary", named, ai_secrets=[entry, {"id": named}, {"id": unnamed}])
    lines = checked(world.new_function({**target, "end_to_end": END_TO_END}))
    assert [result for _, result in lines] == ["warning", "unknown", "warning"]
    assert all(id in what for id, (what, _) in zip([entry["id"], named, unnamed], lines, strict=True))
    assert asked(world) == []


def test_a_check_finds_an_organization_that_cannot_be_named(world):
    """An ai_secret that is named by its ID, and an API key that sees organizations whose names it can't read."""
    world.braintrust.add_key(world.api_key, orgs=("Acme", "Other"))
    function = world.new_function(world.target(world.new_ai_secret(), end_to_end=END_TO_END))
    world.braintrust.fail("GET /v1/organization", Reply(403), times=None)
    assert [result for _, result in checked(function)] == ["warning"]


def test_each_destination_is_asked_for_by_its_own_name(world):
    ids = [world.new_ai_secret(name) for name in ("one", "two")]
    report = world.rotate(world.target(*ids, end_to_end=END_TO_END))
    results = [ai_secret["end_to_end"] for ai_secret in report["targets"][0]["ai_secrets"]]
    assert results == [{"result": "proven"}] * 2
    assert {request.headers["x-bt-endpoint-name"] for request in asked(world)} == {"one", "two"}


def test_an_organization_is_named_if_another_one_has_the_same_name(world):
    world.braintrust.add_key(world.api_key, orgs=("Acme", "Other"))
    world.new_ai_secret(org_name="Other")
    target = world.target(world.new_ai_secret(), end_to_end=END_TO_END)
    assert result_of(world.rotate(target)) == {"result": "proven"}
    assert [request.headers["x-bt-org-name"] for request in asked(world)] == ["Acme"]


def test_a_name_that_no_header_can_carry_leaves_the_credentials_unproven(world):
    report = world.rotate(world.target(world.new_ai_secret("Größe"), end_to_end=END_TO_END))
    assert "can't be sent in a header" in unproven(report) and asked(world) == []


def completion(**headers):
    return Reply(200, COMPLETED, {f"x-bt-{name.replace('_', '-')}": value for name, value in headers.items()})


UNPROVEN = {
    "another endpoint": (completion(used_endpoint="Other"), 'used the ai_secret "Other"', 1),
    "no endpoint": (completion(), "doesn't say which ai_secret", 1),
    "a cached answer": (completion(used_endpoint="AWS Bedrock", cached="HIT"), "cache", 1),
    "HTML": (Reply(200, "<html>", content_type="text/html"), "text/html without a completion", 1),
    "no proxy": (Reply(404, "secret echoed", content_type="text/plain"), "answered 404", 1),
    "a refusal of the API key": (Reply(403, "secret echoed"), "answered 403", 1),
    "429": (Reply(429, "secret echoed"), "answered 429", 5),
    "500": (Reply(500, "secret echoed"), "answered 500", 5),
    "a dropped connection": (DropBefore(), "did not complete", 5),
    "a lost answer": (DropAfter(), "did not complete", 5),
    "a truncated answer": (Truncate(), "did not complete", 5),
    "an endless answer": (Endless("application/json"), "1 MB", 5),
}


@pytest.mark.parametrize("case", UNPROVEN)
def test_credentials_stay_unproven_after(world, case):
    fault, reason, requests = UNPROVEN[case]
    ai_secret = world.new_ai_secret()
    world.braintrust.fail(COMPLETION, fault, times=None)
    target = world.new_staged_target("temporary", ai_secret, end_to_end=END_TO_END)
    report = world.rotate(target)
    assert report["targets"][0]["outcome"] == "rotated" and reason in unproven(report)
    assert len(asked(world)) == requests and "echoed" not in str(report)
    assert world.staged_value(target)["credential_id"] == world.braintrust.credentials(ai_secret)["access_key"]


def test_an_answer_that_comes_too_late_leaves_time_for_the_promotion(world):
    world.braintrust.fail(COMPLETION, Delay(8), times=None)
    target = world.new_staged_target("temporary", world.new_ai_secret(), end_to_end=END_TO_END)
    report = world.rotate(target, timeout=6)
    assert "deadline" in unproven(report)
    assert "AWSPENDING" not in world.stages(target)


OF_THE_MODEL = {
    "busy": (json_error(429, "ThrottlingException", "Too many tokens"), "the model is busy", 5),
    "not ready": (json_error(429, "ModelNotReadyException", "Not ready"), "the model is busy", 5),
    "retired": (json_error(404, "ResourceNotFoundException", "This model has reached its end of life."), "model", 1),
    "refusing the request": (json_error(400, "ValidationException", "max_tokens is too small"), "model", 1),
    "without access": (json_error(403, "AccessDeniedException", "You don't have access to the model."), "model", 1),
}


@pytest.mark.parametrize("passes_refusals_on", [False, True])
@pytest.mark.parametrize("state", OF_THE_MODEL)
def test_it_is_no_failure_of_the_credentials_if_the_model_is(world, state, passes_refusals_on):
    fault, reason, requests = OF_THE_MODEL[state]
    world.braintrust.ai_proxy.passes_refusals_on = passes_refusals_on
    world.aws.fail(CONVERSE, fault, times=None)
    report = world.rotate(world.new_staged_target("temporary", world.new_ai_secret(), end_to_end=END_TO_END))
    assert reason in unproven(report) and len(asked(world)) == requests


def test_nothing_is_sent_to_a_host_that_is_not_bedrocks(world):
    ai_secret = world.new_ai_secret(metadata={"api_base": "https://proxy.example"})
    function = world.new_function(world.target(ai_secret, end_to_end=END_TO_END))
    checked = function.invoke({"action": "check"}).body["targets"][0]["lines"]
    assert [line["result"] for line in checked if "https://proxy.example" in line.get("note", "")] == ["warning"]
    report = function.invoke(FORCED).body
    assert "api_base" in unproven(report) and asked(world) == []
    assert any("https://proxy.example" in warning for warning in report["targets"][0]["warnings"])


def test_a_model_that_braintrust_does_not_know_leaves_the_credentials_unproven(world):
    report = world.rotate(world.target(world.new_ai_secret(), end_to_end={"model": "gpt-5"}))
    assert "no ai_secret with this name that serves the model" in unproven(report)


@pytest.mark.parametrize("kind", USER_BASED)
def test_refused_credentials_are_replaced_by_those_that_worked_before(world, kind):
    rotated = Rotated(world, kind)
    world.aws.fail(CONVERSE, DENIED)
    report = rotated.fail()
    error = failed_error(report, "permission", "braintrust", COMPLETION, "a policy denied")
    assert result_of(report) == {"result": "refused"}
    assert "Braintrust holds the current credentials again" in error["remedy"]
    assert "EndToEndModelId" in error["remedy"]
    # The second request asks for an ai_secret that doesn't exist, and the third is for the restored credentials.
    assert len(asked(world)) == 3
    assert outcome(rotated.function.invoke(scheduled_run())) == "resumed"
    assert rotated.in_braintrust() == secret_of(world.staged_value(rotated.target)) != secret_of(rotated.first)


@pytest.mark.parametrize("kind", ROLE_BASED)
def test_role_based_credentials_that_are_denied_stay_because_older_ones_expire_sooner(world, kind):
    rotated = Rotated(world, kind)
    world.aws.fail(CONVERSE, DENIED, times=3)
    retried = scheduled_run()
    for event in (FORCED, retried, retried):
        result = rotated.function.invoke(event)
        assert not result.ok, result.body
        failed_error(result.report_in_error(), "permission", "braintrust", COMPLETION, "a policy denied")
        assert result_of(result.report_in_error()) == {"result": "refused"}
        assert rotated.has_newer_ones() and "AWSPENDING" not in world.stages(rotated.target)
    # Two runs and a retry, each with a request for these credentials and one for an ai_secret that doesn't exist.
    assert len(asked(world)) == 6 and len(world.patches()) == 2
    assert outcome(rotated.function.invoke(retried)) == "not_due"


@pytest.mark.parametrize("kind", ROLE_BASED)
def test_a_denial_fails_test_secret_and_leaves_the_pending_credentials_in_braintrust(world, kind):
    rotated = Rotated(world, kind)
    steps = SteppedRotation(world, rotated.target, rotated.function)
    steps.run(["createSecret", "setSecret"])
    held = rotated.in_braintrust()
    world.aws.fail(CONVERSE, DENIED)
    failed_error(steps.step("testSecret").report_in_error(), "permission", "braintrust", COMPLETION)
    assert rotated.in_braintrust() == held != secret_of(rotated.first)
    assert world.staged_value(rotated.target) == rotated.first
    steps.run()
    assert rotated.has_newer_ones() and rotated.in_braintrust() == held


@pytest.mark.parametrize("kind", USER_BASED)
def test_a_refusal_fails_test_secret_and_restores_the_current_credentials(world, kind):
    rotated = Rotated(world, kind)
    steps = SteppedRotation(world, rotated.target, rotated.function)
    steps.run(["createSecret", "setSecret"])
    world.aws.fail(CONVERSE, DENIED)
    result = steps.step("testSecret")
    failed_error(result.report_in_error(), "permission", "braintrust", COMPLETION)
    rotated.is_restored()
    steps.run()
    assert rotated.in_braintrust() == secret_of(world.staged_value(rotated.target)) != secret_of(rotated.first)


def test_credentials_that_bedrock_does_not_recognize_through_braintrust_are_refused(world):
    rotated = Rotated(world, "access_key", timeout=16)
    world.aws.fail(CONVERSE, UNRECOGNIZED, times=None)
    report = rotated.fail()
    error = failed_error(report, "verification_failed", "braintrust", COMPLETION, "400 UnrecognizedClientException")
    assert "they don't work there either" in error["remedy"]
    assert "security token" not in str(report)


def test_credentials_that_reach_braintrusts_network_late_are_waited_for(world):
    world.aws.fail(CONVERSE, UNRECOGNIZED, times=3)
    target = world.new_staged_target("access_key", world.new_ai_secret(), end_to_end=END_TO_END)
    assert result_of(world.rotate(target)) == {"result": "proven"}


def test_a_gateway_that_says_whose_credentials_were_refused_needs_no_second_request(world):
    rotated = Rotated(world, "access_key")
    world.braintrust.ai_proxy.passes_refusals_on = True
    world.aws.fail(CONVERSE, DENIED)
    failed_error(rotated.fail(), "permission", "braintrust", COMPLETION, "403 AccessDeniedException")
    assert len(asked(world)) == 2


def test_a_refusal_proves_nothing_if_braintrust_chooses_the_ai_secret_itself(world):
    rotated = Rotated(world, "temporary")
    world.braintrust.ai_proxy.ignores_names = True
    world.aws.fail(CONVERSE, DENIED, times=2)
    result = rotated.function.invoke(FORCED)
    assert "doesn't choose the ai_secret by its name" in unproven(result.body)
    assert world.staged_value(rotated.target) != rotated.first


def test_a_refusal_proves_nothing_if_somebody_else_changed_the_ai_secret_meanwhile(world):
    rotated = Rotated(world, "temporary")

    def changed(request):
        if request.call == COMPLETION:
            world.braintrust.change_by_hand(rotated.ai_secret, secret="x" * 40, access_key="ASIASOMEBODYELSES000")
        return False

    world.braintrust.fail(changed, None)
    result = rotated.function.invoke(FORCED)
    assert "somebody else changed the ai_secret" in unproven(result.body)


def test_refused_credentials_that_are_not_staged_stay_because_nobody_has_others(world):
    ai_secret = world.new_ai_secret()
    world.aws.fail(CONVERSE, DENIED)
    report = world.fail_to_rotate(world.target(ai_secret, end_to_end=END_TO_END))
    failed_error(report, "permission", "braintrust", COMPLETION)
    assert world.has_working_credentials(ai_secret)
    assert world.braintrust.credentials(ai_secret)["access_key"] == report["targets"][0]["credential_id"]


def test_a_role_that_may_not_call_the_model_is_denied(world):
    role = world.cloud.new_role(allow=["bedrock:ListFoundationModels"])
    report = world.fail_to_rotate(world.target(world.new_ai_secret(), role_arn=role, end_to_end=END_TO_END))
    failed_error(report, "permission", "braintrust", COMPLETION, "400 AccessDeniedException")


@pytest.mark.parametrize("is_still_refused", [False, True])
def test_a_run_that_is_killed_after_a_refusal_leaves_the_restoration_to_the_next_one(world, is_still_refused):
    rotated = Rotated(world, "access_key")
    world.aws.fail(CONVERSE, DENIED)
    # The first PATCH writes the new credentials, and the second one restores the current ones.
    world.braintrust.fail(PATCH, Kill(lambda: kill_function(rotated.function), acts=False), skip=1)
    assert not rotated.function.invoke(FORCED).ok
    assert rotated.in_braintrust() != secret_of(rotated.first)
    if is_still_refused:
        world.aws.fail(CONVERSE, DENIED)
        assert not rotated.function.invoke(scheduled_run()).ok
        rotated.is_restored()
    else:
        assert outcome(rotated.function.invoke(scheduled_run())) == "resumed"
        assert rotated.in_braintrust() == secret_of(world.staged_value(rotated.target))


def test_credentials_that_could_not_be_staged_are_proven_too(world):
    rotated = Rotated(world, "temporary")
    refusal = json_error(400, "AccessDeniedException", "not authorized to perform: secretsmanager:PutSecretValue")
    for refused in (False, True):
        world.aws.fail("secretsmanager:PutSecretValue", refusal, times=1)
        if refused:
            world.aws.fail(CONVERSE, DENIED)
        result = rotated.function.invoke(FORCED)
        if refused:
            failed_error(result.report_in_error(), "permission", "braintrust", COMPLETION)
        else:
            assert result_of(result.body) == {"result": "proven"}
        assert rotated.in_braintrust() != secret_of(rotated.first)
        assert world.has_working_credentials(rotated.ai_secret)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollback_is_proven_too(world, kind):
    twice = RotatedTwice(world, kind, end_to_end=END_TO_END)
    world.braintrust.requests.clear()
    result = twice.roll_back()
    assert outcome(result) == "rolled_back" and result_of(result.body) == {"result": "proven"}
    assert len(asked(world)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollback_to_refused_credentials_is_undone(world, kind):
    twice = RotatedTwice(world, kind, end_to_end=END_TO_END)
    world.aws.fail(CONVERSE, DENIED)
    failed_error(twice.roll_back().report_in_error(), "permission", "braintrust", COMPLETION)
    assert world.staged_value(twice.target) == twice.current
    assert world.braintrust.credentials(twice.ai_secret)["secret"] == secret_of(twice.current)


def test_a_repair_is_proven_and_fails_if_the_credentials_are_refused(world):
    rotated = Rotated(world, "access_key")
    for fault in (None, DENIED):
        world.braintrust.change_by_hand(rotated.ai_secret, secret="x" * 40, access_key="AKIASOMEBODYELSES000")
        world.braintrust.requests.clear()
        if fault:
            world.aws.fail(CONVERSE, fault)
        result = rotated.function.invoke(scheduled_run())
        if fault:
            failed_error(result.report_in_error(), "permission", "braintrust", COMPLETION)
        else:
            assert outcome(result) == "repaired" and len(asked(world)) == 1
        rotated.is_restored()


def read_through_braintrust(world):
    """The access key with which a reader who sends no special headers calls Bedrock."""
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "."}], "max_tokens": 1}).encode()
    request = urllib.request.Request(world.braintrust.url + "/v1/proxy/chat/completions", body)
    request.add_header("Authorization", f"Bearer {world.api_key}")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
    return signer(world.aws_requests(CONVERSE)[-1])[0]


def test_a_reader_gets_the_new_credentials_at_once_and_the_old_ones_after_a_refusal(world):
    rotated = Rotated(world, "access_key")
    assert read_through_braintrust(world) == rotated.first["credential_id"]
    world.aws.fail(CONVERSE, DENIED)
    rotated.fail()
    assert read_through_braintrust(world) == rotated.first["credential_id"]
    assert outcome(rotated.function.invoke(scheduled_run())) == "resumed"
    assert read_through_braintrust(world) == world.staged_value(rotated.target)["credential_id"]


def test_without_the_proof_a_reader_keeps_the_old_credentials_for_a_minute(world):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target("access_key", ai_secret, overlap="1h")
    function = world.new_function(target)
    assert outcome(function.invoke(FORCED)) == "rotated"
    first = world.staged_value(target)["credential_id"]
    assert read_through_braintrust(world) == first
    assert outcome(function.invoke(FORCED)) == "rotated"
    assert read_through_braintrust(world) == first != world.staged_value(target)["credential_id"]
