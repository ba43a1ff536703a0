"""Servers with certificates of a private CA, over real TLS: a self-hosted data plane, and stand-ins for AWS."""

import pytest
from support.faults import DropAfter
from support.reports import failed_error
from support.tls import private_ca

# The calls that a rotation makes to AWS, by the variable of the service's endpoint.
AWS_CALLS = {
    "SECRETS_MANAGER": ("secrets_manager", "GetSecretValue"),
    "STS": ("sts", "AssumeRole"),
    "BEDROCK": ("bedrock", "ListFoundationModels"),
}
UNTRUSTED = "presented a TLS certificate whose issuer is not trusted"


@pytest.fixture
def private_aws(world, tmp_path):
    """AWS with a certificate of a private CA, and that CA's PEM file."""
    directory = tmp_path / "aws"
    directory.mkdir()
    tls, bundle = private_ca(directory, "127.0.0.1")
    return world.new_aws(tls), bundle


@pytest.mark.parametrize("given_as", ["PEM", "path"])
def test_a_private_ca_is_trusted_where_it_is_configured(world, private, given_as):
    braintrust, bundle = private
    ai_secret = braintrust.add_ai_secret("AWS Bedrock", metadata={})
    value = bundle.read_text() if given_as == "PEM" else str(bundle)
    world.rotate(world.target(ai_secret), BRAINTRUST_API_URL=braintrust.url, BRAINTRUST_CA_BUNDLE=value)
    assert world.has_working_credentials(ai_secret, braintrust)


@pytest.mark.parametrize("given_as", ["PEM", "path"])
def test_a_private_ca_is_trusted_for_all_of_aws(world, private_aws, given_as):
    aws, bundle = private_aws
    ai_secret = world.new_ai_secret()
    value = bundle.read_text() if given_as == "PEM" else str(bundle)
    world.rotate(world.target(ai_secret), AWS_ENDPOINT_URL=aws.url, AWS_CA_BUNDLE=value)
    assert world.has_working_credentials(ai_secret)
    assert {request.call for request in aws.requests} == {
        "secretsmanager:GetSecretValue",
        "sts:AssumeRole",
        "bedrock:ListFoundationModels",
    }


def test_each_private_ca_is_trusted_for_its_own_services(world, private, private_aws):
    (braintrust, braintrust_bundle), (aws, aws_bundle) = private, private_aws
    ai_secret = braintrust.add_ai_secret("AWS Bedrock", metadata={})
    variables = {"BRAINTRUST_API_URL": braintrust.url, "AWS_ENDPOINT_URL": aws.url}
    bundles = {"BRAINTRUST_CA_BUNDLE": str(braintrust_bundle), "AWS_CA_BUNDLE": str(aws_bundle)}
    world.rotate(world.target(ai_secret), **variables, **bundles)
    assert world.has_working_credentials(ai_secret, braintrust)


def test_a_private_ca_of_aws_is_not_trusted_for_braintrust(world, private):
    braintrust, bundle = private
    ai_secret = braintrust.add_ai_secret("AWS Bedrock", metadata={})
    report = world.fail_to_rotate(
        world.target(ai_secret), BRAINTRUST_API_URL=braintrust.url, AWS_CA_BUNDLE=str(bundle)
    )
    failed_error(report, "unavailable", "braintrust", problem=UNTRUSTED)
    assert braintrust.requests == []


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
    failed_error(report, "unavailable", "sts", problem=UNTRUSTED)
    assert [request.path for request in braintrust.requests if request.method == "POST"] == []


def test_a_private_ca_is_refused_where_it_is_not(world, private):
    braintrust, _ = private
    ai_secret = braintrust.add_ai_secret("AWS Bedrock", metadata={})
    report = world.fail_to_rotate(world.target(ai_secret), BRAINTRUST_API_URL=braintrust.url)
    failed_error(report, "unavailable", "braintrust", problem=UNTRUSTED)
    assert braintrust.requests == []


@pytest.mark.parametrize("variable", AWS_CALLS)
def test_an_untrusted_certificate_of_a_service_of_aws_is_refused_and_named(world, private_aws, variable):
    aws, _ = private_aws
    report = world.fail_to_rotate(
        world.target(world.new_ai_secret()), **{f"AWS_ENDPOINT_URL_{variable}": aws.url}
    )
    failed_error(report, "unavailable", *AWS_CALLS[variable], problem=UNTRUSTED)
    assert aws.requests == []


def test_a_certificate_for_another_host_is_refused(world, private):
    braintrust, bundle = private
    url = braintrust.url.replace("127.0.0.1", "localhost")
    ai_secret = braintrust.add_ai_secret("AWS Bedrock", metadata={})
    report = world.fail_to_rotate(world.target(ai_secret), BRAINTRUST_API_URL=url, BRAINTRUST_CA_BUNDLE=str(bundle))
    problem = "presented a TLS certificate for another host name"
    failed_error(report, "unavailable", "braintrust", problem=problem)


def test_a_certificate_that_has_expired_is_refused(world, tmp_path):
    tls, bundle = private_ca(tmp_path, "127.0.0.1", days=-1)
    aws = world.new_aws(tls)
    report = world.fail_to_rotate(
        world.target(world.new_ai_secret()), AWS_ENDPOINT_URL_STS=aws.url, AWS_CA_BUNDLE=str(bundle)
    )
    failed_error(report, "unavailable", "sts", problem="presented a TLS certificate that has expired")
    assert aws.requests == []


def test_a_later_connection_to_a_host_resumes_the_tls_session(world, private):
    braintrust, bundle = private
    ai_secret = braintrust.add_ai_secret("AWS Bedrock", metadata={})
    braintrust.fail("PATCH /v1/ai_secret/{id}", DropAfter())
    world.rotate(world.target(ai_secret), BRAINTRUST_API_URL=braintrust.url, BRAINTRUST_CA_BUNDLE=str(bundle))
    assert not braintrust.resumed[0] and braintrust.resumed[-1]
