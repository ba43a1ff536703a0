"""A self-hosted data plane with a private CA, over real TLS."""

import pytest
from support.reports import failed_error


@pytest.mark.parametrize("given_as", ["PEM", "path"])
def test_a_private_ca_is_trusted_where_it_is_configured(world, private, given_as):
    braintrust, bundle = private
    ai_secret = braintrust.add_ai_secret("AWS Bedrock", metadata={})
    value = bundle.read_text() if given_as == "PEM" else str(bundle)
    world.rotate(world.target(ai_secret), BRAINTRUST_API_URL=braintrust.url, BRAINTRUST_CA_BUNDLE=value)
    assert world.has_working_credentials(ai_secret, braintrust)


def test_a_private_ca_is_not_trusted_for_aws(world, private):
    braintrust, bundle = private
    ai_secret = braintrust.add_ai_secret("AWS Bedrock", metadata={})
    report = world.fail_to_rotate(
        world.target(ai_secret),
        BRAINTRUST_API_URL=braintrust.url,
        BRAINTRUST_CA_BUNDLE=str(bundle),
        # In place of STS, a server with that CA's certificate.
        AWS_ENDPOINT_URL_STS=braintrust.url,
    )
    failed_error(report, "unavailable", "sts")
    assert [request.path for request in braintrust.requests if request.method == "POST"] == []


def test_a_private_ca_is_refused_where_it_is_not(world, private):
    braintrust, _ = private
    ai_secret = braintrust.add_ai_secret("AWS Bedrock", metadata={})
    report = world.fail_to_rotate(world.target(ai_secret), BRAINTRUST_API_URL=braintrust.url)
    failed_error(report, "unavailable", "braintrust")
    assert braintrust.requests == []


def test_a_certificate_for_another_host_is_refused(world, private):
    braintrust, bundle = private
    url = braintrust.url.replace("127.0.0.1", "localhost")
    ai_secret = braintrust.add_ai_secret("AWS Bedrock", metadata={})
    report = world.fail_to_rotate(world.target(ai_secret), BRAINTRUST_API_URL=url, BRAINTRUST_CA_BUNDLE=str(bundle))
    failed_error(report, "unavailable", "braintrust")
