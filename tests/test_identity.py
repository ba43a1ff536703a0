"""Two destinations that are one ai_secret, and names that could belong to another organization."""

import json

import pytest
from support.http_messages import Reply
from support.kinds import KINDS
from support.reports import failed_error

NAME = "AWS Bedrock"


def failed_lines(function) -> dict[str, list[str]]:
    """The classes of the errors that `check` finds, by target."""
    targets = function.invoke({"action": "check"}).body["targets"]
    return {t["name"]: [line["error"]["class"] for line in t["lines"] if "error" in line] for t in targets}


def outcomes(report) -> dict[str, tuple]:
    return {t["name"]: (t["outcome"], t.get("error", {}).get("class")) for t in report["targets"]}


def test_the_second_of_two_targets_that_name_one_ai_secret_is_refused_at_every_run(world):
    ai_secret = world.new_ai_secret(NAME)
    by_id, by_name = {"id": ai_secret}, {"name": NAME}
    for first, second in [(by_id, by_name), (by_name, by_id), (by_name, {"name": NAME, "org_name": "Acme"})]:
        function = world.new_function(world.target(first, name="one"), world.target(second, name="two"))
        for event in [{"action": "rotate"}, {"action": "rotate"}]:
            report = function.invoke(event).report_in_error()
            assert outcomes(report) == {"one": ("rotated", None), "two": ("failed", "conflict")}
            held = world.braintrust.credentials(ai_secret)["access_key"]
            assert held == report["targets"][0]["credential_id"]
        assert not function.invoke({"action": "rotate", "targets": ["two"]}).ok
        assert world.braintrust.credentials(ai_secret)["access_key"] == held
        assert failed_lines(function) == {"one": [], "two": ["conflict"]}


@pytest.mark.parametrize("kind", KINDS)
def test_one_target_that_names_an_ai_secret_twice_writes_it_once(world, kind):
    ai_secret = world.new_ai_secret(NAME)
    target = world.new_staged_target(kind, None, ai_secrets=[{"id": ai_secret}, {"name": NAME}])
    report = world.fail_to_rotate(target)
    classes = [found.get("error", {}).get("class") for found in report["targets"][0]["ai_secrets"]]
    assert classes == [None, "conflict"]
    assert len(world.patches()) == 1


def test_equal_names_of_two_organizations_with_a_key_each_are_two_ai_secrets(world):
    us, eu = world.new_ai_secret(NAME), world.new_ai_secret(NAME, org_name="Acme EU")
    world.braintrust.add_key("sk-eu", orgs=("Acme EU",))
    key = world.cloud.new_secret("sk-eu")
    targets = [
        world.target({"name": NAME}, name="us"),
        world.target({"name": NAME, "api_key_secret_id": key}, name="eu"),
    ]
    report = world.rotate(*targets)
    assert [target["ai_secrets"][0]["id"] for target in report["targets"]] == [us, eu]
    assert world.has_working_credentials(us) and world.has_working_credentials(eu)


def test_two_keys_of_one_organization_see_one_ai_secret(world):
    ai_secret = world.new_ai_secret(NAME)
    world.braintrust.add_key("sk-other")
    key = world.cloud.new_secret("sk-other")
    targets = [
        world.target({"name": NAME}, name="one"),
        world.target({"name": NAME, "api_key_secret_id": key}, name="two"),
    ]
    function = world.new_function(*targets)
    report = function.invoke({"action": "rotate"}).report_in_error()
    assert outcomes(report) == {"one": ("rotated", None), "two": ("failed", "conflict")}
    assert world.braintrust.credentials(ai_secret)["access_key"] == report["targets"][0]["credential_id"]
    assert failed_lines(function) == {"one": [], "two": ["conflict"]}


@pytest.mark.parametrize("filters", [set(), {"ai_secret_type"}])
def test_a_name_is_refused_once_the_key_sees_a_second_organization(world, unchanged, filters):
    world.new_ai_secret("renamed")
    world.braintrust.ignored_filters = filters
    world.braintrust.add_key(world.api_key, orgs=("Acme", "Acme EU"))
    namesake = world.new_ai_secret(NAME, org_name="Acme EU")
    unchanged()
    function = world.new_function(world.target({"name": NAME}))
    result = function.invoke({"action": "rotate"})
    assert outcomes(result.report_in_error()) == {"prod": ("failed", "conflict")}
    error = result.report_in_error()["targets"][0]["error"]
    assert namesake in error["problem"] and "org_name" in error["remedy"], json.dumps(error)
    assert failed_lines(function) == {"prod": ["conflict"]}


def test_an_ai_secret_of_another_organization_than_the_named_one_is_refused(world):
    world.new_ai_secret("renamed")
    world.braintrust.ignored_filters = {"org_name"}
    world.braintrust.add_key(world.api_key, orgs=("Acme", "Acme EU"))
    namesake = world.new_ai_secret(NAME, org_name="Acme EU")
    report = world.fail_to_rotate(world.target({"name": NAME, "org_name": "Acme"}))
    error = failed_error(report, "conflict", "braintrust", "GET /v1/ai_secret")
    assert namesake in error["problem"] and world.patches() == []
    world.rotate(world.target({"name": NAME, "org_name": "Acme EU"}))
    assert world.has_working_credentials(namesake)


@pytest.mark.parametrize("lookup", ["id", "name"])
def test_an_ai_secret_that_was_renamed_while_its_patch_waited_is_written_only_by_its_id(world, lookup):
    ai_secret = world.new_ai_secret(NAME)

    def renamed(request):
        is_patch = request.method == "PATCH" and world.braintrust.ai_secrets[ai_secret]["name"] == NAME
        if is_patch:
            world.braintrust.ai_secrets[ai_secret]["name"] = "renamed"
        return is_patch

    world.braintrust.fail(renamed, Reply(429, headers={"retry-after": "3"}))
    target = world.target({lookup: {"id": ai_secret, "name": NAME}[lookup]})
    result = world.new_function(target).invoke({"action": "rotate"})
    assert result.ok == (lookup == "id") == world.has_working_credentials(ai_secret), result.body
    if lookup == "name":
        failed_error(result.report_in_error(), "conflict", "braintrust", "PATCH /v1/ai_secret/{id}", "somebody else")


def test_a_key_that_sees_a_second_organization_with_other_providers_only_needs_no_org_name(world):
    world.braintrust.add_key(world.api_key, orgs=("Acme", "Acme EU"))
    ai_secret = world.new_ai_secret(NAME)
    world.new_ai_secret(NAME, org_name="Acme EU", type="openai")
    world.rotate(world.target({"name": NAME}))
    assert world.has_working_credentials(ai_secret)
