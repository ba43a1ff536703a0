"""Which ai_secret a target writes to, and in which layout."""

import json

import pytest
from support.http_messages import Reply
from support.kinds import ROLE_BASED
from support.local_cloud import REGION
from support.reports import failed_error


ARTICLE = {"aws_access_key_id": "AKIAOLD", "aws_secret_access_key": "old"}


def test_if_only_the_documented_layout_is_there_both_are_written_and_kept(world):
    ai_secret = world.new_ai_secret(metadata=ARTICLE)
    function = world.new_function(world.target(ai_secret))
    for _ in range(2):
        result = function.invoke({"action": "rotate"})
        assert result.ok, result.body
        [target] = result.body["targets"]
        metadata = world.braintrust.ai_secrets[ai_secret]["metadata"]
        assert metadata["aws_access_key_id"] == target["credential_id"]
        assert world.aws.works(
            metadata["aws_access_key_id"], metadata["aws_secret_access_key"], metadata["aws_session_token"], REGION
        )
        assert world.has_working_credentials(ai_secret)
        assert target["ai_secrets"][0]["layout"] == "both"
        assert ai_secret in target["warnings"][0]
    assert len(world.patches()) == 2


@pytest.mark.parametrize(
    ("layout", "before", "written"),
    [
        ("gateway", ARTICLE, {"access_key", "session_token", "region"}),
        ("documented", ARTICLE, {"aws_access_key_id", "aws_secret_access_key", "aws_session_token", "region"}),
        ("documented", {}, {"aws_access_key_id", "aws_secret_access_key", "aws_session_token", "region"}),
    ],
)
def test_a_configured_layout_wins_over_the_metadata(world, layout, before, written):
    ai_secret = world.new_ai_secret(metadata=before)
    report = world.rotate(world.target({"id": ai_secret, "layout": layout}))
    [target] = report["targets"]
    assert target["ai_secrets"][0]["layout"] == layout
    [patch] = world.patches()
    assert set(patch.json()["metadata"]) == written
    assert ai_secret in target["warnings"][0]


def test_the_documented_layout_is_refused_over_credentials_that_gateways_read(world, unchanged):
    target = world.target({"id": world.new_ai_secret(), "layout": "documented"})
    unchanged()
    report = world.fail_to_rotate(target)
    failed_error(report, "conflict", "braintrust")
    [checked] = world.new_function(target).invoke({"action": "check"}).body["targets"]
    assert [line["error"]["class"] for line in checked["lines"] if line["result"] == "failed"] == ["conflict"]


def test_a_secret_key_in_stale_fields_of_the_metadata_is_warned_of(world):
    ai_secret = world.new_ai_secret(metadata={"access_key": "AKIAOLD", "aws_secret_access_key": "stale-secret-key"})
    report = world.rotate(world.target(ai_secret))
    [warning] = report["targets"][0]["warnings"]
    assert ai_secret in warning and "aws_secret_access_key" in warning
    assert "stale-secret-key" not in json.dumps(report)


def test_an_ai_secret_is_found_by_its_name_on_the_last_of_many_pages(world):
    ai_secret = world.new_ai_secret("the one", org_name="Acme")
    for n in range(250):
        world.braintrust.add_ai_secret(f"other {n}", type="bedrock" if n % 2 else "openai")
    world.rotate(world.target({"name": "the one"}))
    assert world.has_working_credentials(ai_secret)


def test_a_data_plane_that_ignores_the_name_filter_is_read_to_its_last_page(world):
    ai_secret = world.new_ai_secret("the one")
    for n in range(250):
        world.braintrust.add_ai_secret(f"other {n}")
    world.braintrust.ignored_filters = {"ai_secret_name"}
    world.rotate(world.target({"name": "the one"}))
    assert world.has_working_credentials(ai_secret)
    assert [patch.path for patch in world.patches()] == [f"/v1/ai_secret/{ai_secret}"]


def test_the_organization_decides_between_equal_names(world):
    world.braintrust.add_key(world.api_key, orgs=("Acme US", "Acme EU"))
    us = world.new_ai_secret("AWS Bedrock", org_name="Acme US")
    eu = world.new_ai_secret("AWS Bedrock", org_name="Acme EU")
    before = world.braintrust.snapshot()[us]
    world.rotate(world.target({"name": "AWS Bedrock", "org_name": "Acme EU"}))
    assert world.has_working_credentials(eu)
    assert world.braintrust.snapshot()[us] == before


def test_several_targets_and_ai_secrets_are_written_side_by_side(world):
    ids = [world.new_ai_secret(f"secret {n}") for n in range(6)]
    targets = [world.target(*ids[:3], name="one"), world.target(*ids[3:], name="two")]
    world.braintrust.latency = 0.3
    report = world.rotate(*targets)
    assert all(world.has_working_credentials(ai_secret) for ai_secret in ids)
    assert len({world.braintrust.credentials(ai_secret)["access_key"] for ai_secret in ids}) == 2
    # Twelve calls of 0.3 s each would take 3.6 s one after the other.
    assert report["duration_ms"] < 2_000


def test_one_target_writes_to_two_data_planes_with_two_keys(world):
    here = world.new_ai_secret()
    other = world.new_braintrust()
    other.add_key("sk-other")
    there = other.add_ai_secret("AWS Bedrock", metadata={})
    key = world.cloud.new_secret(json.dumps({"api_key": "sk-other"}))
    world.rotate(world.target(here, {"id": there, "api_url": other.url, "api_key_secret_id": key}))
    assert world.has_working_credentials(here)
    assert world.has_working_credentials(there, other)


@pytest.mark.parametrize("kind", ROLE_BASED)
def test_a_patch_that_an_older_data_plane_refuses_for_good_is_a_failure(world, kind):
    world.braintrust.older_data_plane = True
    ai_secret = world.new_ai_secret()
    function = world.new_function(world.target(ai_secret, kind=kind))
    assert function.invoke({"action": "rotate"}).ok
    before = world.braintrust.snapshot()
    world.braintrust.fail("PATCH /v1/ai_secret/{id}", Reply(503), times=None)
    assert not function.invoke({"action": "rotate"}).ok
    assert world.braintrust.snapshot() == before


def test_an_older_data_plane_without_secret_updated_at_is_supported(world):
    older = world.new_braintrust()
    older.older_data_plane = True
    older.add_key(world.api_key)
    ai_secret = older.add_ai_secret("AWS Bedrock", metadata={})
    world.rotate(world.target(ai_secret), BRAINTRUST_API_URL=older.url)
    assert world.has_working_credentials(ai_secret, older)


def test_one_target_serves_two_organizations_on_two_data_planes_with_two_keys(world):
    eu, eu_key = world.new_braintrust(), "sk-europe"
    eu.add_key(eu_key, orgs=("Acme", "Acme EU"))
    other = eu.add_ai_secret("AWS Bedrock", org_name="Acme", metadata={})
    here = world.new_ai_secret("AWS Bedrock")
    there = eu.add_ai_secret("AWS Bedrock", org_name="Acme EU", metadata={})
    entry = {
        "name": "AWS Bedrock",
        "org_name": "Acme EU",
        "api_url": eu.url,
        "api_key_secret_id": world.cloud.new_secret(eu_key),
    }
    report = world.rotate(world.target({"name": "AWS Bedrock"}, entry))
    assert [found["id"] for found in report["targets"][0]["ai_secrets"]] == [here, there]
    assert world.has_working_credentials(here) and world.has_working_credentials(there, eu)
    # Both have the same credentials, and the organization that was not named has none.
    assert world.braintrust.credentials(here)["access_key"] == eu.credentials(there)["access_key"]
    assert eu.ai_secrets[other]["metadata"] == {}
    for server, key in ((world.braintrust, world.api_key), (eu, eu_key)):
        assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {key}"}
