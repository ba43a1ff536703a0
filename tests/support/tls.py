"""Certificates of a private CA, such as those of a self-hosted Braintrust data plane or a proxy that inspects TLS."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_PEM = serialization.Encoding.PEM


def private_ca(directory: Path, *names: str, days: int = 1) -> tuple[tuple[str, str], Path]:
    """The files of a server's certificate and key, for these host names and addresses, and the PEM file of its CA.

    `days` is how long the certificate is still valid. A negative number makes one that has expired.
    """
    ca = _certificate("Private CA")
    server, key = _certificate("server", issuer=ca, names=names, days=days)
    chain, private_key, bundle = directory / "server.pem", directory / "key.pem", directory / "ca.pem"
    chain.write_bytes(server.public_bytes(_PEM))
    private_key.write_bytes(key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    bundle.write_bytes(ca[0].public_bytes(_PEM))
    return (str(chain), str(private_key)), bundle


def _certificate(subject, issuer=None, names=(), days=1):
    """A certificate and its key; self-signed if no issuer is given."""
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
        .not_valid_before(now - datetime.timedelta(days=30))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_name(n) for n in names]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256()), key


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
