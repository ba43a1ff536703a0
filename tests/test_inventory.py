"""The action `inventory`: every Bedrock provider that the API keys see, and what is wrong. It changes nothing."""

import json
import time
from pathlib import Path

import pytest
from support.events import scheduled_run
from support.faults import Delay
from support.http_messages import Reply
from support.local_cloud import REGION
from support.reports import outcome

INVENTORY = {"action": "inventory"}
PERMANENT = {"access_key": "AKIASOMEBODYELSES000", "region": REGION}
# Findings that any provider with credentials has.
SIMPLER = {"could_use_assume_role", "might_use_assume_role"}


def inventory(function):
    result = function.invoke(INVENTORY)
    assert result.ok, result.body
    answer = result.body
    severe = [found for found in answer["findings"] if found["severity"] == "now"]
    not_read = [key for key in answer["api_keys"] if "unknown" in key]
    assert answer["ok"] == (not severe and not not_read)
    shown = [finding for provider in answer["providers"] for finding in provider["findings"]]
    counts = {found["finding"]: found["providers"] for found in answer["findings"]}
    assert counts == {finding: shown.count(finding) for finding in shown}
    return answer


def findings(answer) -> dict[str, set[str]]:
    """By the provider's ID."""
    return {provider["id"]: set(provider["findings"]) - SIMPLER for provider in answer["providers"]}


def of(answer, id) -> dict:
    [found] = [provider for provider in answer["providers"] if provider["id"] == id]
    return found


def test_each_provider_is_shown_with_its_writers_and_nothing_changes(world):
    ours, theirs = world.new_ai_secret(), world.new_ai_secret("By hand", metadata=PERMANENT)
    own = world.new_project_provider(metadata={"auth_type": "api_key", "region": REGION})
    world.braintrust.add_ai_secret("OpenAI", type="openai", metadata={})
    function = world.new_function(world.target(ours), world.target(own, name="bot"))
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    before = world.braintrust.snapshot()
    answer = inventory(function)
    assert world.braintrust.snapshot() == before
    assert {provider["id"] for provider in answer["providers"]} == {ours, theirs, own["id"]}
    found = of(answer, ours)
    assert (found["targets"], found["region"], found["layout"]) == (["prod"], REGION, "gateway")
    assert found["access_key_id"] == world.braintrust.credentials(ours)["access_key"]
    assert found["secret_updated_at"][:19] == before[ours]["secret_updated_at"][:19]
    assert (of(answer, own["id"])["targets"], of(answer, own["id"])["project"]["id"]) == (["bot"], own["project"])
    assert of(answer, theirs)["targets"] == []
    assert findings(answer) == {ours: set(), theirs: {"shares_load"}, own["id"]: set()}
    [key] = answer["api_keys"]
    assert (key["ai_secrets"], key["projects"], key["project_providers"]) == (2, 1, 1) and "unknown" not in key


def test_what_matters_most_comes_first(world):
    ours = world.new_ai_secret()
    no_region = world.new_ai_secret("No region", metadata={"access_key": "AKIA"})
    in_clear = world.new_ai_secret("In clear", metadata=PERMANENT | {"aws_secret_access_key": "clear-secret"})
    override = world.new_project_provider(metadata=PERMANENT)["id"]
    function = world.new_function(world.target(ours))
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    answer = inventory(function)
    assert not answer["ok"]
    assert [provider["id"] for provider in answer["providers"]] == [no_region, in_clear, override, ours]
    assert findings(answer) == {
        ours: set(),
        no_region: {"no_region", "shares_load_broken"},
        in_clear: {"secret_in_metadata", "shares_load"},
        override: {"overrides_target"},
    }
    order = [found["severity"] for found in answer["findings"]]
    assert order == sorted(order, key=["now", "soon", "hygiene", "simpler"].index)
    assert "clear-secret" not in json.dumps(answer)


def test_three_api_keys_with_different_organizations_are_read_side_by_side(world):
    """Names decide within an organization, and a provider that two API keys see is listed once."""
    eu = world.new_braintrust()
    world.braintrust.add_key("sk-second", orgs=("Acme", "Acme Labs"))
    eu.add_key("sk-third", orgs=("Acme EU",))
    second, third = world.cloud.new_secret("sk-second"), world.cloud.new_secret("sk-third")
    here, labs = world.new_ai_secret(), world.new_ai_secret(org_name="Acme Labs", metadata=PERMANENT)
    there = eu.add_ai_secret("AWS Bedrock", org_name="Acme EU", metadata=PERMANENT)
    function = world.new_function(
        world.target({"name": "AWS Bedrock"}, name="one"),
        world.target({"name": "AWS Bedrock", "org_name": "Acme Labs", "api_key_secret_id": second}, name="two"),
        world.target({"name": "AWS Bedrock", "api_url": eu.url, "api_key_secret_id": third}, name="three"),
    )
    answer = inventory(function)
    assert {it["id"]: it["targets"] for it in answer["providers"]} == {here: ["one"], labs: ["two"], there: ["three"]}
    names = {it["id"]: it["organization_name"] for it in answer["providers"]}
    assert names == {here: "Acme", labs: "Acme Labs", there: "Acme EU"}
    keys = {key["api_key_secret_id"]: (key["organizations"], key["ai_secrets"]) for key in answer["api_keys"]}
    assert keys == {world.api_key_secret: (1, 1), second: (2, 2), third: (1, 1)}


def test_a_namesake_in_another_organization_is_named(world):
    world.braintrust.add_key(world.api_key, orgs=("Acme", "Acme Labs"))
    ours, other = world.new_ai_secret(), world.new_ai_secret(org_name="Acme Labs", metadata=PERMANENT)
    function = world.new_function(world.target({"name": "AWS Bedrock", "org_name": "Acme"}))
    assert findings(inventory(function))[other] == {"namesake"}
    [checked] = function.invoke({"action": "check"}).body["targets"]
    [line] = [line for line in checked["lines"] if other in line["what"]]
    assert line["result"] == "warning" and line["what"].endswith('of the organization "Acme Labs"')
    assert all(ours not in line["what"] for line in checked["lines"] if line["result"] == "warning")


def test_an_api_key_without_access_to_projects_leaves_them_unknown(world):
    world.braintrust.add_key(world.api_key, projects=False)
    ours = world.new_ai_secret()
    function = world.new_function(world.target(ours))
    answer = inventory(function)
    [unknown] = answer["api_keys"][0]["unknown"]
    assert "projects" in unknown["what"] and unknown["error"]["class"] == "permission"
    assert of(answer, ours)["targets"] == ["prod"]
    [checked] = function.invoke({"action": "check"}).body["targets"]
    assert checked["ok"]
    assert [line["result"] for line in checked["lines"] if "projects" in line["what"]] == ["unknown"]


def test_an_api_key_that_sees_no_organization_sees_nothing(world):
    ours = world.new_ai_secret()
    world.braintrust.add_key(world.api_key, orgs=())
    answer = inventory(world.new_function(world.target(ours)))
    assert answer["providers"] == []
    assert answer["api_keys"][0]["organizations"] == 0


def test_an_organization_whose_name_cannot_be_read_is_shown_by_its_id(world):
    ours = world.new_ai_secret()
    function = world.new_function(world.target(ours))
    assert of(inventory(function), ours)["organization_name"] == "Acme"
    world.braintrust.fail("GET /v1/organization", Reply(403), times=None)
    answer = inventory(function)
    assert "organization" in of(answer, ours) and "organization_name" not in of(answer, ours)
    [unknown] = answer["api_keys"][0]["unknown"]
    assert "names" in unknown["what"] and unknown["error"]["class"] == "permission"


@pytest.mark.parametrize("call", ["GET /v1/ai_secret", "GET /v1/project", "GET /v1/env_var"])
def test_one_list_that_fails_leaves_the_others(world, call):
    ours, own = world.new_ai_secret(), world.new_project_provider()
    function = world.new_function(world.target(ours), world.target(own, name="bot"))
    world.braintrust.fail(call, Reply(400), times=None)
    answer = inventory(function)
    [unknown] = answer["api_keys"][0]["unknown"]
    assert unknown["error"]["call"] == call
    seen = {provider["id"] for provider in answer["providers"]}
    assert seen == ({own["id"]} if call == "GET /v1/ai_secret" else {ours})


def test_a_refused_api_key_does_not_hide_what_another_one_sees(world):
    ours = world.new_ai_secret()
    refused = world.cloud.new_secret("sk-unknown")
    other = world.new_project_provider()
    target = world.target({**other, "api_key_secret_id": refused}, name="refused")
    answer = inventory(world.new_function(world.target(ours), target))
    assert {provider["id"] for provider in answer["providers"]} == {ours, other["id"]}
    unknown = {key["api_key_secret_id"]: key.get("unknown", []) for key in answer["api_keys"]}
    assert unknown[world.api_key_secret] == []
    assert {line["error"]["class"] for line in unknown[refused]} == {"invalid_credentials"}


def test_a_target_whose_api_key_is_refused_still_counts_as_a_possible_writer(world):
    ours, theirs = world.new_ai_secret(), world.new_ai_secret("Team B", metadata=PERMANENT)
    project = world.braintrust.add_project("support-bot")
    own = world.new_project_provider("Bot", project, PERMANENT)["id"]
    other, namesake = world.new_ai_secret("Other", metadata=PERMANENT), world.new_project_provider("Bot")["id"]
    refused = {"api_key_secret_id": world.cloud.new_secret("sk-unknown")}
    bot = {"project": "support-bot", "org_name": "Acme", "name": "Bot"}
    b = world.target({"name": "Team B", **refused}, {**bot, **refused}, name="b")
    function = world.new_function(world.target(ours), b)
    answer = inventory(function)
    for id in (theirs, own):
        found = of(answer, id)
        assert (findings(answer)[id], found["targets"], found["possible_targets"]) == (set(), [], ["b"])
    # The target can write neither of these.
    assert findings(answer)[other] == {"shares_load"} and findings(answer)[namesake] >= {"overrides_target"}
    assert all("possible_targets" not in of(answer, id) for id in (ours, other, namesake))
    [checked] = function.invoke({"action": "check", "targets": ["prod"]}).body["targets"]
    warned = [line["what"] for line in checked["lines"] if line["result"] == "warning"]
    assert any(other in what for what in warned) and not any(id in what for what in warned for id in (theirs, own))
    assert [line["result"] for line in checked["lines"] if line["what"].endswith(": b")] == ["unknown"]


def test_a_provider_of_another_project_than_the_named_one_is_written_by_nobody(world):
    """A rotation refuses it."""
    ours, own = world.new_ai_secret(), world.new_project_provider(metadata=PERMANENT)
    other = world.new_project_provider("Other", metadata=PERMANENT)
    elsewhere = world.braintrust.add_project("elsewhere")
    by_id = world.target({"project": elsewhere, "id": own["id"]}, name="by-id")
    by_name = world.target({"project": "elsewhere", "org_name": "Acme", "id": other["id"]}, name="by-name")
    function = world.new_function(world.target(ours), by_id, by_name)
    answer = inventory(function)
    for id in (own["id"], other["id"]):
        assert (of(answer, id)["targets"], findings(answer)[id]) == ([], {"overrides_target"})
        assert "possible_targets" not in of(answer, id)
    assert not function.invoke(scheduled_run()).ok
    assert {request.path.rpartition("/")[2] for request in world.patches()} == {ours}


def test_the_writers_are_found_even_if_the_projects_take_all_the_time(world):
    ours, labs = world.new_ai_secret(), world.new_ai_secret("Labs", PERMANENT, org_name="Acme Labs")
    world.new_project_provider()
    world.braintrust.add_key(world.api_key, orgs=("Acme", "Acme Labs"))
    here, there = {"name": "AWS Bedrock", "org_name": "Acme"}, {"name": "Labs", "org_name": "Acme Labs"}
    function = world.new_function(world.target(here), world.target(there, name="labs"), timeout=9)
    world.braintrust.fail("GET /v1/env_var", Delay(9), times=None)
    answer = inventory(function)
    assert {ours: ["prod"], labs: ["labs"]} == {it["id"]: it["targets"] for it in answer["providers"]}
    [unknown] = answer["api_keys"][0]["unknown"]
    assert unknown["error"]["class"] == "timeout"


def test_what_a_moved_target_has_left_beside_its_provider_still_shares_the_load(world):
    moved = {"auth_type": "assume_role", "role_arn": "arn:aws:iam::000000000000:role/braintrust", "region": REGION}
    ours, old = world.new_ai_secret(metadata=moved), world.new_ai_secret("Bedrock old", metadata=PERMANENT)
    trial = world.new_project_provider(metadata=moved)["id"]
    answer = inventory(world.new_function(world.target(ours)))
    assert findings(answer) == {ours: {"uses_assume_role"}, old: {"shares_load"}, trial: set()}


def test_what_is_not_read_before_the_deadline_is_unknown(world):
    ours = world.new_ai_secret()
    for n in range(40):
        world.new_project_provider(project=world.braintrust.add_project(f"project {n}"))
    function = world.new_function(world.target(ours), timeout=8)
    world.braintrust.latency = 1.5
    answer = inventory(function)
    [unknown] = answer["api_keys"][0]["unknown"]
    assert unknown["error"]["class"] == "timeout"
    assert ours in findings(answer)


def test_the_check_names_what_concerns_its_target(world):
    ours = world.new_ai_secret()
    broken = world.new_ai_secret("No region", metadata={"access_key": "AKIA"})
    override = world.new_project_provider(metadata=PERMANENT)["id"]
    elsewhere = world.new_ai_secret("Elsewhere", org_name="Acme Labs", metadata={})
    world.braintrust.add_key(world.api_key, orgs=("Acme", "Acme Labs"))
    function = world.new_function(world.target(ours))
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    result = function.invoke({"action": "check"})
    [checked] = result.body["targets"]
    warned = [line["what"] for line in checked["lines"] if line["result"] == "warning"]
    assert result.body["ok"] and sum(broken in what for what in warned) == 2
    assert sum(override in what for what in warned) == 1
    assert not any(elsewhere in what for what in warned)


def test_an_inventory_names_no_targets(world):
    function = world.new_function(world.target(world.new_ai_secret()))
    result = function.invoke({**INVENTORY, "targets": ["prod"]})
    assert not result.ok and "inventory" in result.body["errorMessage"]


@pytest.mark.long
def test_an_answer_of_long_names_fits_into_lambdas_limit(world):
    """Each API key that sees more than there is room for says so. JSON writes a control character with six bytes."""
    long = "\x01" * 100
    world.braintrust.add_key("sk-second", orgs=("Acme",))
    other = {"id": world.new_ai_secret("Other"), "api_key_secret_id": world.cloud.new_secret("sk-second")}
    function = world.new_function(world.target(world.new_ai_secret(), other))
    count = 3_000
    for n in range(count):
        name = f"{n} {long}"
        world.braintrust.add_ai_secret(name, metadata={"auth_type": long, "access_key": long, "region": long})
    answer = inventory(function)
    assert len(json.dumps(answer, ensure_ascii=False).encode()) < 6_000_000
    assert len(answer["providers"]) < count
    assert all(key["unknown"] for key in answer["api_keys"] if key["ai_secrets"] < count)


# A debug build needs a few MB more than a release.
MEMORY_FOR_A_THOUSAND = 8 << 20


def peak_memory(function) -> int:
    lines = Path(f"/proc/{function.pid}/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith("VmHWM")]
    return int(line.split()[1]) << 10


@pytest.mark.long
def test_a_thousand_providers_take_seconds_and_little_memory(world):
    """At 50 ms a call: 500 ai_secrets on pages, and 500 projects with a provider each."""
    ours = world.new_ai_secret()
    function = world.new_function(world.target(ours))
    inventory(function)
    before = peak_memory(function)
    for n in range(499):
        world.braintrust.add_ai_secret(f"secret {n}", metadata=PERMANENT)
    for n in range(500):
        world.new_project_provider(project=world.braintrust.add_project(f"project {n}"), metadata=PERMANENT)
    world.braintrust.latency = 0.05
    began = time.monotonic()
    answer = inventory(function)
    seconds, memory = time.monotonic() - began, peak_memory(function) - before
    print(f"{seconds:.1f} s, {memory / (1 << 20):.1f} MB more")
    assert len(answer["providers"]) == 1_000 and "unknown" not in answer["api_keys"][0]
    assert seconds < 10
    assert memory < MEMORY_FOR_A_THOUSAND
