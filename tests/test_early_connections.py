"""The connections that the function opens before it can send a request over them."""

import time

import pytest
from support.faults import Hold
from support.tls import private_ca

# Both kinds of probe, and how many connections each needs.
PROBES = [(None, 1), ({"converse": ["anthropic.claude-3-haiku-20240307-v1:0", "amazon.nova-micro-v1:0"]}, 2)]


@pytest.fixture
def bedrock(world, tmp_path):
    """Bedrock behind a server of its own, with TLS, and the variables of a function that calls it."""
    directory = tmp_path / "bedrock"
    directory.mkdir()
    tls, bundle = private_ca(directory, "127.0.0.1")
    server = world.new_aws(tls)
    variables = {"AWS_ENDPOINT_URL_BEDROCK": server.url, "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": server.url}
    return server, variables | {"AWS_CA_BUNDLE": str(bundle)}


def hold_until_connected(call, calls_server, server, count=1) -> list[bool]:
    """Holds the answer to a call until the other server has connections. Whether it got them is added to the result."""
    had = []

    def wait():
        deadline = time.monotonic() + 60
        while len(server.peers) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        had.append(len(server.peers) >= count)

    calls_server.fail(call, Hold(wait))
    return had


def test_a_connection_to_braintrust_is_opened_while_its_api_key_is_read(world, private):
    braintrust, bundle = private
    had = hold_until_connected("secretsmanager:GetSecretValue", world.aws, braintrust)
    ai_secret = braintrust.add_ai_secret("AWS Bedrock", metadata={})
    world.rotate(world.target(ai_secret), BRAINTRUST_API_URL=braintrust.url, BRAINTRUST_CA_BUNDLE=str(bundle))
    assert had == [True]
    assert {request.method for request in braintrust.requests} == {"GET", "PATCH"}
    # Not equal, because a call that a busy machine delays for too long is repeated over another connection.
    assert len(braintrust.peers) <= len(braintrust.requests) - 1


def test_each_destination_has_a_connection_once_the_api_key_is_read(world, private):
    braintrust, bundle = private
    had = hold_until_connected("secretsmanager:GetSecretValue", world.aws, braintrust, 2)
    ai_secrets = [braintrust.add_ai_secret(name, metadata={}) for name in ("one", "two")]
    world.rotate(world.target(*ai_secrets), BRAINTRUST_API_URL=braintrust.url, BRAINTRUST_CA_BUNDLE=str(bundle))
    assert had == [True]
    assert len(braintrust.peers) <= len(braintrust.requests) - 2


@pytest.mark.parametrize(("probe", "connections"), PROBES)
def test_the_connections_for_the_probe_are_opened_while_the_role_is_assumed(world, bedrock, probe, connections):
    server, variables = bedrock
    had = hold_until_connected("sts:AssumeRole", world.aws, server, connections)
    world.rotate(world.target(world.new_ai_secret(), probe=probe), **variables)
    assert had == [True]
    assert len(server.peers) <= len(server.requests)


def test_nothing_is_sent_over_a_connection_that_is_not_needed(world, bedrock):
    server, variables = bedrock
    had = hold_until_connected("sts:AssumeRole", world.aws, server)
    missing = "arn:aws:iam::000000000000:role/missing"
    world.fail_to_rotate(world.target(world.new_ai_secret(), role_arn=missing), **variables)
    assert had == [True]
    assert server.requests == []


def test_a_dry_run_opens_no_connection_to_bedrock(world, bedrock):
    server, variables = bedrock
    event = {"action": "rotate", "dry_run": True}
    world.rotate(world.target(world.new_ai_secret()), event=event, **variables)
    assert server.peers == []
