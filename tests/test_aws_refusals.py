"""Errors explain AWS's refusals by code and message, and refused calls are repeated only if that can help."""

import pytest
from support.aws_replies import json_error, xml_error
from support.kinds import USER_BASED
from support.reports import failed_error

STALE = "Signature expired: 20260115T115400Z is now earlier than 20260115T115500Z (20260115T120000Z - 5 min.)"
STALE_SIGNATURE = xml_error("sts", 403, "SignatureDoesNotMatch", STALE)


def test_a_request_whose_signature_was_refused_for_its_time_is_signed_and_sent_once_more(world):
    ai_secret = world.new_ai_secret()
    world.aws.fail("sts:AssumeRole", STALE_SIGNATURE)
    world.rotate(world.target(ai_secret))
    assert [request.status for request in world.aws_requests("sts:AssumeRole")] == [403, 200]
    assert world.has_working_credentials(ai_secret)


def test_a_signature_that_is_refused_twice_for_its_time_is_explained_by_the_clock(world, unchanged):
    target = world.target(world.new_ai_secret())
    unchanged()
    world.aws.fail("sts:AssumeRole", STALE_SIGNATURE, times=None)
    error = failed_error(
        world.fail_to_rotate(target), "invalid_credentials", "sts", "AssumeRole", "SignatureDoesNotMatch"
    )
    assert "clock" in error["remedy"]
    assert len(world.aws_requests("sts:AssumeRole")) == 2


@pytest.mark.parametrize("kind", USER_BASED)
def test_a_key_whose_creation_was_refused_for_the_signatures_time_is_created_once(world, kind):
    target = world.new_staged_target(kind, world.new_ai_secret())
    call = "CreateAccessKey" if kind == "access_key" else "CreateServiceSpecificCredential"
    world.aws.fail(f"iam:{call}", xml_error("iam", 403, "SignatureDoesNotMatch", STALE))
    world.rotate(target)
    assert [request.status for request in world.aws_requests(f"iam:{call}")] == [403, 200]
    assert len(world.iam_keys(target)) == 1


@pytest.mark.parametrize("kind", USER_BASED)
@pytest.mark.parametrize("code", ["ConcurrentModification", "EntityTemporarilyUnmodifiable"])
def test_a_call_is_retried_while_something_else_is_changing_the_iam_user(world, kind, code):
    target = world.new_staged_target(kind, world.new_ai_secret())
    call = "CreateAccessKey" if kind == "access_key" else "CreateServiceSpecificCredential"
    world.aws.fail(f"iam:{call}", xml_error("iam", 409, code, "Please try again later."))
    world.rotate(target)
    assert [request.status for request in world.aws_requests(f"iam:{call}")] == [409, 200]
    assert len(world.iam_keys(target)) == 1


def test_a_denial_shows_the_message_of_aws_and_its_request_id(world):
    target = world.target(world.new_ai_secret())
    request_id = "01234567-89ab-cdef-0123-456789abcdef"
    message = (
        "User: arn:aws:sts::123456789012:assumed-role/rotator/function is not authorized to perform: "
        f"sts:AssumeRole on resource: {target['role_arn']}"
    )
    reply = xml_error("sts", 403, "AccessDenied", message)
    reply.headers["x-amzn-RequestId"] = request_id
    world.aws.fail("sts:AssumeRole", reply)
    error = failed_error(world.fail_to_rotate(target), "permission", "sts", "AssumeRole", "AccessDenied")
    assert error["aws"] == {"message": message, "request_id": request_id}


def test_the_message_of_another_error_is_not_shown(world):
    target = world.target(world.new_ai_secret())
    world.aws.fail("sts:AssumeRole", xml_error("sts", 400, "ValidationError", "the value was hidden-word"))
    report = world.fail_to_rotate(target)
    error = failed_error(report, "configuration", "sts", "AssumeRole", "ValidationError")
    assert "message" not in error.get("aws", {}) and "hidden-word" not in str(report)


@pytest.mark.parametrize(
    ("refusal", "error_class"),
    [
        (json_error(400, "AccessDeniedException", "Access to KMS is not allowed"), "permission"),
        (json_error(400, "EncryptionFailure", "the key is disabled"), "configuration"),
        (
            json_error(
                400,
                "InvalidRequestException",
                "You can't perform this operation on the secret because it was marked for deletion.",
            ),
            "configuration",
        ),
        (
            json_error(400, "InvalidParameterException", "Operation not permitted on a replica secret."),
            "configuration",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else value.headers["x-amzn-ErrorType"],
)
def test_a_secret_that_cannot_be_written_is_written_only_once_and_leaves_no_key(world, refusal, error_class):
    target = world.new_staged_target("access_key", world.new_ai_secret())
    world.aws.fail("secretsmanager:PutSecretValue", refusal, times=None)
    failed_error(world.fail_to_rotate(target), error_class, "secrets_manager", "PutSecretValue")
    assert len(world.aws_requests("secretsmanager:PutSecretValue")) == 1
    assert world.iam_keys(target) == {}
