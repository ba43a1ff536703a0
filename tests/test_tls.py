"""A self-hosted data plane with a private CA, over real TLS."""

import pytest
from test_refusals import failed


@pytest.mark.parametrize("given_as", ["PEM", "path"])
def test_a_private_ca_is_trusted_where_it_is_configured(bench, private, given_as):
    braintrust, bundle = private
    ai_secret = braintrust.add_ai_secret("AWS Bedrock", metadata={})
    value = bundle.read_text() if given_as == "PEM" else str(bundle)
    bench.rotate(bench.target(ai_secret), BRAINTRUST_API_URL=braintrust.url, BRAINTRUST_CA_BUNDLE=value)
    assert bench.holds_working_credentials(ai_secret, braintrust)


def test_a_private_ca_is_not_trusted_for_aws(bench, private):
    braintrust, bundle = private
    ai_secret = braintrust.add_ai_secret("AWS Bedrock", metadata={})
    report = bench.fail(
        bench.target(ai_secret),
        BRAINTRUST_API_URL=braintrust.url,
        BRAINTRUST_CA_BUNDLE=str(bundle),
        # A server with that CA's certificate in the place of STS.
        AWS_ENDPOINT_URL_STS=braintrust.url,
    )
    failed(report, "unavailable", "sts", "could not be reached")
    assert [request.path for request in braintrust.requests if request.method == "POST"] == []


def test_a_private_ca_is_refused_where_it_is_not(bench, private):
    braintrust, _ = private
    ai_secret = braintrust.add_ai_secret("AWS Bedrock", metadata={})
    report = bench.fail(bench.target(ai_secret), BRAINTRUST_API_URL=braintrust.url)
    failed(report, "unavailable", "braintrust", "certificate", "BRAINTRUST_CA_BUNDLE")
    assert braintrust.requests == []


def test_a_certificate_for_another_host_is_refused(bench, private):
    braintrust, bundle = private
    url = braintrust.url.replace("127.0.0.1", "localhost")
    ai_secret = braintrust.add_ai_secret("AWS Bedrock", metadata={})
    report = bench.fail(bench.target(ai_secret), BRAINTRUST_API_URL=url, BRAINTRUST_CA_BUNDLE=str(bundle))
    failed(report, "unavailable", "braintrust", "certificate")
