"""A PATCH that is carried out only in part leaves parts of two credentials, which don't work together."""

import pytest
from support.kinds import KINDS, ROLE_BASED
from support.reports import failed_error

FIELDS = ["secret", "metadata"]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_mixture_is_completed_in_the_same_run(world, kind, field):
    ai_secret = world.new_ai_secret()
    world.braintrust.partial_patches = [field]
    report = world.rotate(world.new_staged_target(kind, ai_secret))
    assert report["targets"][0]["outcome"] == "rotated"
    assert world.has_working_credentials(ai_secret)
    assert len(world.patches()) == 2


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("kind", ROLE_BASED)
def test_without_a_staged_secret_a_mixture_is_patched_until_it_is_complete(world, kind, field):
    ai_secret = world.new_ai_secret()
    world.braintrust.partial_patches = [field] * 4
    report = world.rotate(world.target(ai_secret, kind=kind))
    assert report["targets"][0]["outcome"] == "rotated"
    assert world.has_working_credentials(ai_secret)
    assert len(world.patches()) == 5


def test_a_mixture_that_cannot_be_completed_is_reported_as_one(world):
    world.braintrust.partial_patches = ["secret"] * 99
    report = world.fail_to_rotate(world.target(world.new_ai_secret()), timeout=8)
    failed_error(report, "verification_failed", "braintrust")
    assert report["targets"][0]["ai_secrets"][0]["is_mixed"]
