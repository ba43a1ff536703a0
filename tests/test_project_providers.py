"""A project's own provider as a destination."""

import json

import pytest
from support.events import FORCED, ROLLBACK, scheduled_run
from support.http_messages import Reply
from support.kinds import KINDS, ROLE_BASED, USER_BASED
from support.local_cloud import REGION
from support.reports import failed_error


@pytest.fixture
def project(world):
    return world.braintrust.add_project("support-bot")


def own(world, project) -> str:
    """The ID of the project's new provider."""
    return world.new_project_provider(project=project)["id"]


def target_of(world, kind, *destinations):
    if kind in ROLE_BASED:
        return world.target(*destinations, kind=kind)
    return world.new_staged_target(kind, destinations[0], ai_secrets=list(destinations))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_rotated_into_a_projects_provider(world, project, kind):
    ai_secret, provider = world.new_ai_secret(), own(world, project)
    before = world.braintrust.snapshot()
    assert not world.project_can_call_bedrock(project)
    function = world.new_function(target_of(world, kind, {"project": "support-bot", "name": "AWS Bedrock"}))
    for _ in range(2):
        result = function.invoke(FORCED)
        assert result.ok, result.body
    [written] = result.body["targets"][0]["ai_secrets"]
    assert (written["id"], written["project"], written["updated"]) == (provider, '"support-bot"', True)
    assert written["ai_secret"] == '"AWS Bedrock" in the project "support-bot"'
    assert world.project_can_call_bedrock(project)
    after = world.braintrust.snapshot()
    assert after[ai_secret] == before[ai_secret]
    assert (after[provider]["name"], after[provider]["type"]) == ("AWS Bedrock", "bedrock")
    assert {patch.path for patch in world.patches()} == {f"/v1/env_var/{provider}"}
    assert {frozenset(patch.json()) for patch in world.patches()} == {frozenset({"name", "value", "metadata"})}


def test_a_project_with_a_provider_of_its_own_does_not_use_the_organizations(world, project):
    ai_secret, provider = world.new_ai_secret(), own(world, project)
    without = world.braintrust.add_project("search")
    world.rotate(world.target(ai_secret))
    assert world.project_can_call_bedrock(without) and not world.project_can_call_bedrock(project)
    world.rotate(world.target(ai_secret, {"project": project, "id": provider}))
    assert world.project_can_call_bedrock(without) and world.project_can_call_bedrock(project)


@pytest.mark.parametrize("kind", ["temporary", "access_key"])
def test_both_sorts_of_destinations_of_one_target_hold_the_same_credentials(world, project, kind):
    ai_secret, provider = world.new_ai_secret(), own(world, project)
    elsewhere = world.braintrust.add_project("search")
    other = world.new_project_provider(project=elsewhere)
    entries = [{"name": "AWS Bedrock"}, {"project": project, "name": "AWS Bedrock"}, other]
    report = world.rotate(target_of(world, kind, *entries))
    assert [found["id"] for found in report["targets"][0]["ai_secrets"]] == [ai_secret, provider, other["id"]]
    held = [world.braintrust.credentials(id) for id in (ai_secret, provider, other["id"])]
    assert held[0] == held[1] == held[2] and world.works(held[0])
    assert world.project_can_call_bedrock(project) and world.project_can_call_bedrock(elsewhere)


def test_the_documented_layout_is_written_beside_the_gateways_where_somebody_used_it(world, project):
    article = {"aws_access_key_id": "AKIAOLD", "aws_secret_access_key": "old"}
    entry = world.new_project_provider(project=project, metadata=article)
    [target] = world.rotate(world.target(entry))["targets"]
    metadata = world.braintrust.ai_secrets[entry["id"]]["metadata"]
    pair = (metadata["aws_access_key_id"], metadata["aws_secret_access_key"], metadata["aws_session_token"])
    assert world.aws.works(*pair, REGION) and world.project_can_call_bedrock(project)
    assert target["ai_secrets"][0]["layout"] == "both"
    assert f"the provider {entry['id']} of the project {project} has the fields" in target["warnings"][0]


def test_an_older_data_plane_that_ignores_filters_is_read_correctly(world, project):
    provider = own(world, project)
    world.new_project_provider(project=world.braintrust.add_project("search"))
    world.new_project_provider("another name", project=project)
    world.braintrust.older_data_plane = True
    world.braintrust.project_providers.ignored_filters = {"env_var_name", "object_id", "object_type", "project_name"}
    world.rotate(world.target({"project": "support-bot", "name": "AWS Bedrock"}))
    assert world.has_working_credentials(provider)
    assert [patch.path for patch in world.patches()] == [f"/v1/env_var/{provider}"]


@pytest.mark.parametrize("kind", ["temporary", "access_key"])
def test_a_provider_that_somebody_changed_is_repaired(world, project, kind):
    entry = world.new_project_provider(project=project)
    target = world.new_staged_target(kind, entry)
    function = world.new_function(target)
    assert function.invoke({"action": "rotate"}).ok
    world.braintrust.change_by_hand(entry["id"], secret="by hand", access_key="AKIAHAND")
    [dry] = function.invoke({"action": "rotate", "dry_run": True}).body["targets"]
    assert dry["outcome"] == ("would_repair" if kind in USER_BASED else "would_rotate")
    assert world.braintrust.credentials(entry["id"])["access_key"] == "AKIAHAND"
    result = function.invoke(scheduled_run())
    assert result.ok, result.body
    [repaired] = result.body["targets"]
    assert repaired["outcome"] == ("repaired" if kind in USER_BASED else "rotated")
    assert world.project_can_call_bedrock(project)
    if kind in USER_BASED:
        assert f"the provider {entry['id']} of the project {project} did not hold" in repaired["warnings"][0]


@pytest.mark.parametrize("kind", ["temporary", "access_key"])
def test_a_rollback_writes_the_previous_credentials_back(world, project, kind):
    entry = world.new_project_provider(project=project)
    more = {"overlap": "1h"} if kind in USER_BASED else {}
    target = world.new_staged_target(kind, entry, **more)
    function = world.new_function(target)
    for _ in range(2):
        assert function.invoke(FORCED).ok
    previous = world.staged_value(target, "AWSPREVIOUS")["credential_id"]
    result = function.invoke(dict(ROLLBACK, targets=["prod"]))
    assert result.ok, result.body
    assert world.braintrust.credentials(entry["id"])["access_key"] == previous
    assert world.project_can_call_bedrock(project)


def test_a_dry_run_changes_nothing(world, project):
    own(world, project)
    before = world.braintrust.snapshot()
    report = world.rotate(
        world.target({"project": "support-bot", "name": "AWS Bedrock"}), event={"action": "rotate", "dry_run": True}
    )
    assert report["targets"][0]["outcome"] == "would_rotate"
    assert world.braintrust.snapshot() == before and world.patches() == []


@pytest.mark.parametrize("field", ["secret", "metadata"])
def test_a_mixture_is_completed_or_put_back(world, project, field):
    entry = world.new_project_provider(project=project)
    target = world.new_staged_target("access_key", entry)
    function = world.new_function(target)
    assert function.invoke({"action": "rotate"}).ok
    held = world.braintrust.credentials(entry["id"])
    world.age_credentials(target)
    world.braintrust.partial_patches = [field]
    assert function.invoke(scheduled_run()).ok
    assert world.project_can_call_bedrock(project)
    new = world.braintrust.credentials(entry["id"])
    assert new != held
    world.age_credentials(target)
    world.braintrust.partial_patches = [field, field]
    assert not function.invoke(scheduled_run()).ok
    assert world.braintrust.credentials(entry["id"]) == new and world.project_can_call_bedrock(project)


def refusals(world, project) -> dict[str, tuple[dict, str, str]]:
    """Entries that can't be written: the class, and words of the problem."""
    openai = world.new_project_provider("OpenAI", project=project, type="openai")
    variable = world.new_project_provider("MY_VARIABLE", project=project, category="env_var")
    unknown_type = world.new_project_provider("unknown", project=project, metadata={"auth_type": "web_identity"})
    elsewhere = world.new_project_provider()
    ai_secret = world.new_ai_secret()
    own(world, project)
    unknown = "11111111-1111-4111-8111-111111111111"
    bot = {"project": "support-bot"}
    return {
        "no such project": ({"project": "sales", "name": "AWS Bedrock"}, "not_found", '"support-bot"'),
        "no such project ID": ({"project": unknown, "name": "AWS Bedrock"}, "not_found", '"support-bot"'),
        "no such provider": (bot | {"name": "Bedrock"}, "not_found", '("AWS Bedrock")'),
        "no such provider ID": (bot | {"id": unknown}, "not_found", f"for the ID {unknown}"),
        "an ai_secret's ID": (bot | {"id": ai_secret}, "not_found", f"for the ID {ai_secret}"),
        "another project's provider": (bot | {"id": elsewhere["id"]}, "conflict", elsewhere["project"]),
        "another type": (bot | {"name": "OpenAI"}, "conflict", 'type "openai", not "bedrock"; it was not touched'),
        "another type by ID": (openai, "conflict", 'type "openai", not "bedrock"'),
        "an environment variable": (variable, "conflict", 'secret_category "env_var", not "ai_provider"'),
        "an unknown auth_type": (unknown_type, "conflict", 'auth_type "web_identity"'),
        "a layout that gateways would not read": (
            bot | {"name": "AWS Bedrock", "layout": "documented"},
            "conflict",
            "gateway layout",
        ),
    }


def test_what_must_not_be_written_is_refused_with_the_way_out_and_checked_beforehand(world, project, unchanged):
    cases = refusals(world, project)
    unchanged()
    for case, (entry, error_class, words) in cases.items():
        target = world.target(entry)
        error = failed_error(world.fail_to_rotate(target), error_class, "braintrust")
        assert words in error["problem"] and error["remedy"], (case, error)
        [checked] = world.new_function(target).invoke({"action": "check"}).body["targets"]
        [failed] = [line for line in checked["lines"] if line["result"] == "failed"]
        assert failed["error"] == error and failed["what"].startswith("find the provider "), case


@pytest.mark.parametrize("entry", [{"project": "support-bot"}, None])
def test_without_the_right_to_read_projects_the_denied_call_is_named(world, project, entry, unchanged):
    provider = own(world, project)
    world.braintrust.add_key(world.api_key, projects=False)
    unchanged()
    entry = {"project": "support-bot", "name": "AWS Bedrock"} if entry else {"project": project, "id": provider}
    error = failed_error(world.fail_to_rotate(world.target(entry)), "permission", "braintrust")
    assert error["call"] == ("GET /v1/project" if "name" in entry else "GET /v1/env_var/{id}")
    assert "may read the project" in error["remedy"]


def test_a_key_that_sees_no_organization_is_told_so(world, project, unchanged):
    own(world, project)
    world.braintrust.add_key(world.api_key, orgs=())
    unchanged()
    entry = {"project": "support-bot", "name": "AWS Bedrock"}
    error = failed_error(world.fail_to_rotate(world.target(entry)), "not_found", "braintrust")
    assert error["problem"] == 'the API key sees no project named "support-bot". It sees: none'


def test_an_organization_admin_is_not_needed_for_a_projects_provider(world, project):
    own(world, project)
    world.braintrust.add_key(world.api_key, admin=False)
    world.rotate(world.target({"project": "support-bot", "name": "AWS Bedrock"}))
    assert world.project_can_call_bedrock(project)


def test_the_organization_decides_between_projects_of_one_name(world):
    world.braintrust.add_key(world.api_key, orgs=("Acme US", "Acme EU"))
    us, eu = (world.braintrust.add_project("support-bot", org) for org in ("Acme US", "Acme EU"))
    left, right = own(world, us), own(world, eu)
    before = world.braintrust.snapshot()[left]
    entry = {"project": "support-bot", "name": "AWS Bedrock"}
    error = failed_error(world.fail_to_rotate(world.target(entry)), "conflict", "braintrust")
    assert us in error["problem"] and eu in error["problem"] and "org_name" in error["remedy"]
    world.rotate(world.target(entry | {"org_name": "Acme EU"}))
    assert world.has_working_credentials(right)
    assert world.braintrust.snapshot()[left] == before


def test_a_project_of_another_organization_than_the_named_one_is_refused(world, unchanged):
    world.braintrust.add_key(world.api_key, orgs=("Acme", "Other"))
    theirs = world.braintrust.add_project("support-bot", "Other")
    own(world, theirs)
    world.braintrust.project_providers.ignored_filters = {"org_name"}
    unchanged()
    target = world.target({"project": "support-bot", "org_name": "Acme", "name": "AWS Bedrock"})
    error = failed_error(world.fail_to_rotate(target), "conflict", "braintrust", "GET /v1/project")
    assert theirs in error["problem"]


def test_an_api_key_that_may_not_list_organizations_rotates_nevertheless(world, project):
    provider = own(world, project)
    world.braintrust.fail("GET /v1/organization", Reply(403, "{}"), times=None)
    world.rotate(world.target({"project": "support-bot", "org_name": "Acme", "name": "AWS Bedrock"}))
    assert world.has_working_credentials(provider)


def test_projects_by_name_and_by_id_take_a_number_of_calls_that_grows_with_their_number_only(world):
    projects = [world.braintrust.add_project(f"project {number}") for number in range(10)]
    providers = [own(world, project) for project in projects]
    by_name = [{"project": f"project {n}", "org_name": "Acme", "name": "AWS Bedrock"} for n in range(5)]
    by_id = [{"project": project, "name": "AWS Bedrock"} for project in projects[5:]]
    world.rotate(world.target(*by_name, *by_id))
    assert all(world.has_working_credentials(provider) for provider in providers)
    # By name: the project, its organization, the provider, and the PATCH. By ID: the provider, the project's name, and
    # the PATCH.
    assert len(world.braintrust.requests) == 5 * 4 + 5 * 3


def spellings(world, project, provider) -> list[dict]:
    other_key = "sk-other"
    world.braintrust.add_key(other_key)
    return [
        {"project": "support-bot", "name": "AWS Bedrock"},
        {"project": project, "name": "AWS Bedrock"},
        {"project": "support-bot", "org_name": "Acme", "name": "AWS Bedrock"},
        {"project": "support-bot", "id": provider},
        {
            "project": "support-bot",
            "name": "AWS Bedrock",
            "api_key_secret_id": world.cloud.new_secret(json.dumps({"api_key": other_key})),
        },
    ]


def test_two_targets_may_not_share_a_projects_provider_however_it_is_spelt(world, project):
    provider = own(world, project)
    first, *others = spellings(world, project, provider)
    for other in others:
        for pair in ((first, other), (other, first)):
            targets = [world.target(entry, name=name) for entry, name in zip(pair, ("one", "two"), strict=True)]
            one, two = world.fail_to_rotate(*targets)["targets"]
            assert (one["outcome"], two["outcome"]) == ("rotated", "failed"), pair
            assert two["error"]["class"] == "conflict" and 'of the target "one"' in two["error"]["problem"]
            assert world.braintrust.credentials(provider)["access_key"] == one["credential_id"]


def test_the_same_name_in_an_organization_and_in_its_projects_are_different_destinations(world, project):
    ids = [world.new_ai_secret(), own(world, project), own(world, world.braintrust.add_project("search"))]
    entries = [{"name": "AWS Bedrock"}, *({"project": p, "name": "AWS Bedrock"} for p in ("support-bot", "search"))]
    world.rotate(*(world.target(entry, name=f"target-{n}") for n, entry in enumerate(entries)))
    assert len({world.braintrust.credentials(id)["access_key"] for id in ids}) == 3
    assert all(world.has_working_credentials(id) for id in ids)


def test_status_and_check_show_a_projects_provider(world, project):
    entry = world.new_project_provider(project=project)
    target = world.new_staged_target("access_key", {"project": "support-bot", "name": "AWS Bedrock"})
    function = world.new_function(target)
    assert function.invoke({"action": "rotate"}).ok
    [status] = function.invoke({"action": "status"}).body["targets"]
    [shown] = status["ai_secrets"]
    assert (status["state"], shown["id"], shown["project"]) == ("ok", entry["id"], '"support-bot"')
    assert shown["holds_current"] and shown["access_key_id"] == status["credential_id"]
    [checked] = function.invoke({"action": "check"}).body["targets"]
    results = {line["what"]: line["result"] for line in checked["lines"]}
    named = 'the provider "AWS Bedrock" in the project "support-bot"'
    assert checked["ok"], results
    assert (results[f"find {named} and its layout"], results[f"update {named}"]) == ("ok", "unknown")


def test_a_run_makes_no_more_calls_than_it_needs_to_find_a_project(world, project):
    provider = own(world, project)
    for entry, calls in [
        ({"project": project, "id": provider}, ["GET /v1/env_var/{id}"]),
        ({"project": project, "name": "AWS Bedrock"}, ["GET /v1/env_var"]),
        (
            {"project": "support-bot", "org_name": "Acme", "name": "AWS Bedrock"},
            ["GET /v1/project", "GET /v1/organization", "GET /v1/env_var"],
        ),
    ]:
        world.braintrust.requests.clear()
        world.rotate(world.target(entry))
        assert [request.call for request in world.braintrust.requests] == [*calls, "PATCH /v1/env_var/{id}"]
