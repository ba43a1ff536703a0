"""Every reader of an ai_secret can call Bedrock after a rotation, whatever the ai_secret held before."""

import pytest
from support.kinds import KINDS, ROLE_BASED
from support.local_cloud import REGION
from support.readers import READERS, ROUTES

PAIR = {"access_key": "AKIAOLD", "region": REGION}
ARTICLE = {"aws_access_key_id": "AKIAOLD", "aws_secret_access_key": "old"}
STATES = {
    "made in the UI": PAIR,
    "auth_type": {**PAIR, "auth_type": "iam_credentials"},
    "auth_type null": {**PAIR, "auth_type": None},
    "auth_type empty": {**PAIR, "auth_type": ""},
    "an API key": {"auth_type": "api_key", "region": REGION},
    "a null token": {**PAIR, "session_token": None},
    "a stale token": {**PAIR, "session_token": "stale"},
    "no region": {"access_key": "AKIAOLD"},
    "an empty region": {**PAIR, "region": ""},
    "no metadata": None,
    "documented": {**ARTICLE, "aws_session_token": "old", "region": REGION},
    "documented, no region": ARTICLE,
}
WITH_AUTH_TYPE = {state for state, metadata in STATES.items() if "auth_type" in (metadata or {})}
DOCUMENTED = {"documented", "documented, no region"}


def fails(kind, state, reader, route) -> bool:
    """Whether the reader fails whatever is written, because a PATCH can't remove a field."""
    is_api_key = kind.endswith("api_key")
    match reader:
        case "proxy_before_auth_type":
            refused = state in WITH_AUTH_TYPE | DOCUMENTED and route == "anthropic/messages"
            return is_api_key or refused
        case "strict_proxy":
            return state in DOCUMENTED
        case "todays_proxy":
            return False
        case "gateway":
            return kind == "access_key" and state == "a stale token"
    raise AssertionError(reader)


def rotate_twice(world, kind) -> dict[str, str]:
    """Two rotations over an ai_secret in each state. Returns their IDs."""
    ids = {state: world.braintrust.add_ai_secret(state, metadata=metadata) for state, metadata in STATES.items()}
    destinations = [{"id": id} for id in ids.values()]
    if kind in ROLE_BASED:
        target = world.target(*destinations, kind=kind)
    else:
        target = world.new_staged_target(kind, destinations[0], ai_secrets=destinations)
    function = world.new_function(target)
    for _ in range(2):
        result = function.invoke({"action": "rotate", "force": True})
        assert result.ok, result.body
    return ids


@pytest.mark.parametrize("kind", KINDS)
def test_every_reader_can_call_bedrock_unless_no_patch_can_help(world, kind):
    ids = rotate_twice(world, kind)
    for state, id in ids.items():
        for reader in READERS:
            for route in ROUTES:
                expected = not fails(kind, state, reader, route)
                assert world.can_call_bedrock(id, reader, route) == expected, (state, reader, route)
