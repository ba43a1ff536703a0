"""What `make break` breaks is found by a check, and `make mend` mends it, whatever the kind of credentials."""

import json
import sys

import pytest
from support.deployed_function import rotate_deployed
from support.deployment import invoke
from support.kinds import KINDS, ROLE_BASED
from support.paths import ROOT

sys.path.append(str(ROOT / "tools"))
import breakage  # noqa: E402
import local_stack  # noqa: E402
from page import Page  # noqa: E402

PAGE = Page(80)


class Function:
    """A deployed function, as the tools see it."""

    def __init__(self, world, outputs, ai_secret):
        self.world, self.client = world, world.client
        self.local = {"outputs": outputs, "ai_secret": ai_secret, "project": ""}
        self.local |= {"braintrust_url": world.braintrust.url, "braintrust_api_key": world.api_key}

    def invoke(self, **event):
        return invoke(self.world.cloud, self.local["outputs"]["FunctionName"], json.dumps(event))

    def is_unfinished(self):
        answer, _ = self.invoke(action="status")
        return answer["targets"][0]["rotation_under_way"]

    def problems(self):
        answer, _ = self.invoke(action="check")
        return [line["error"]["class"] for line in answer["targets"][0]["lines"] if line["result"] == "failed"]


@pytest.fixture
def function(world, deployed, monkeypatch):
    """Deploys a function for a kind of credentials, and rotates."""

    def function(kind):
        ai_secret = world.braintrust.add_ai_secret("AWS Bedrock", metadata={"region": "us-east-1"})
        outputs = deployed(ai_secret, Kind=kind, StageCredentials="true")
        rotate_deployed(world, outputs)
        found = Function(world, outputs, ai_secret)
        monkeypatch.setattr(local_stack, "remember", found.local.update)
        return found

    return function


@pytest.mark.parametrize("kind", KINDS)
def test_everything_that_breaks_is_found_and_mended(world, function, kind):
    broken = function(kind)
    everything = breakage.breakable(broken.local["outputs"])
    assert everything == (["trust"] if kind in ROLE_BASED else []) + ["bedrock", "ai_secret"]
    assert broken.problems() == []
    for what in everything:
        breakage.break_local_stack(broken, what, PAGE)
        assert broken.problems() == ["verification_failed" if what == "ai_secret" else "permission"], what
        assert breakage.mend_local_stack(broken, PAGE)
        assert broken.problems() == [], what
    assert world.works(world.braintrust.credentials(broken.local["ai_secret"]))


@pytest.mark.parametrize("kind", KINDS)
def test_an_ai_secret_that_was_moved_to_assume_role_can_be_moved_back(world, function, kind):
    moved = function(kind)
    breakage.break_local_stack(moved, "assume_role", PAGE)
    answer, _ = moved.invoke(action="status")
    assert answer["targets"][0]["state"] == "uses_assume_role"
    assert moved.problems() == []
    assert breakage.mend_local_stack(moved, PAGE)
    answer, _ = moved.invoke(action="status")
    assert answer["targets"][0]["state"] == "ok"
    assert world.works(world.braintrust.credentials(moved.local["ai_secret"]))


def test_several_breakages_and_repeated_ones_are_mended_at_once(function, capsys):
    broken = function("temporary")
    for what in ("ai_secret", "trust", "trust", "bedrock", "bedrock"):
        breakage.break_local_stack(broken, what, PAGE)
    assert sorted(broken.problems()) == ["permission", "verification_failed"]
    assert breakage.mend_local_stack(broken, PAGE)
    assert broken.problems() == []
    capsys.readouterr()
    assert breakage.mend_local_stack(broken, PAGE)
    assert capsys.readouterr().out.startswith("Nothing is broken.")


def test_what_can_not_break_is_refused_with_what_can(function):
    broken = function("access_key")
    for what in ("trust", "everything", ""):
        with pytest.raises(SystemExit, match="WHAT must be bedrock or ai_secret"):
            breakage.break_local_stack(broken, what, PAGE)
    assert broken.problems() == []


@pytest.mark.parametrize("kind", KINDS)
def test_mending_resumes_a_rotation_that_failed_while_something_was_broken(function, kind, capsys):
    broken = function(kind)
    breakage.break_local_stack(broken, "bedrock", PAGE)
    _, failed = broken.invoke(action="rotate", force=True)
    assert failed and broken.is_unfinished()
    assert breakage.mend_local_stack(broken, PAGE)
    assert not broken.is_unfinished() and broken.problems() == []
    told = " ".join(capsys.readouterr().out.split())
    assert "A run of the function then completed the rotation that had failed." in told
    assert ("a short-term API key of the session ASIA" in told) == (kind == "short_term_api_key")
