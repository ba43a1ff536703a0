"""A self-hosted data plane with a private CA, over real TLS."""

import datetime
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from test_refusals import failed


def certificate(subject, issuer=None, address=None):
    """A certificate and its key; its own issuer if none is given."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)])
    issuer_name, issuer_key = (issuer[0].subject, issuer[1]) if issuer else (name, key)
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if address:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(issuer_key, hashes.SHA256()), key


@pytest.fixture
def private(bench, tmp_path):
    """A Braintrust whose certificate a private CA signed, and that CA's PEM."""
    ca = certificate("Private CA")
    server, key = certificate("data plane", issuer=ca, address="127.0.0.1")
    pem = serialization.Encoding.PEM
    chain, private_key, bundle = tmp_path / "server.pem", tmp_path / "key.pem", tmp_path / "ca.pem"
    chain.write_bytes(server.public_bytes(pem))
    private_key.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    bundle.write_bytes(ca[0].public_bytes(pem))
    braintrust = bench.new_braintrust(tls=(str(chain), str(private_key)))
    braintrust.add_key(bench.api_key)
    return braintrust, bundle


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
