"""The benchmark's distance: each exchange takes a round trip, and the record shows which round trips follow others."""

import http.client
import ssl
import sys

import pytest
from support.local_braintrust import LocalBraintrust
from support.paths import ROOT
from support.tls import private_ca

sys.path.append(str(ROOT / "bench"))
from distance import Crossing, Distance  # noqa: E402
from round_trips import sequence  # noqa: E402

ADDRESS, SECONDS = "127.0.0.2", 0.02


@pytest.fixture
def far(tmp_path):
    """A server at a distance: the record, and a client."""
    certificate, ca_bundle = private_ca(tmp_path, ADDRESS)
    with LocalBraintrust() as server, Distance(certificate) as distance:
        distance.round_trip = SECONDS
        port = int(distance.place("Braintrust", ADDRESS, server.port).rpartition(":")[2])
        client = http.client.HTTPSConnection(ADDRESS, port, context=ssl.create_default_context(cafile=ca_bundle))
        yield distance, client
        client.close()


def call(client):
    client.request("POST", "/v1/ai_secret", b"x" * 100_000)
    response = client.getresponse()
    response.read()
    return response.status


def test_each_handshake_and_each_call_takes_a_round_trip(far):
    distance, client = far
    assert [call(client), call(client)] == [401, 401]
    expected = ["TCP to Braintrust", "TLS to Braintrust", "call to Braintrust", "call to Braintrust"]
    assert [crossing.what for crossing in distance.crossings] == expected
    shortest = min(crossing.answered - crossing.sent for crossing in distance.crossings)
    assert shortest > SECONDS or shortest == pytest.approx(SECONDS)
    assert sequence(distance.crossings) == [[what] for what in expected]


def test_a_certificate_that_the_client_does_not_trust_ends_the_connection(far):
    distance, client = far
    stranger = http.client.HTTPSConnection(client.host, client.port, context=ssl.create_default_context())
    with pytest.raises(ssl.SSLCertVerificationError):
        call(stranger)
    assert [crossing.what for crossing in distance.crossings] == ["TCP to Braintrust", "TLS to Braintrust"]


def test_round_trips_that_begin_before_others_end_are_not_in_sequence_with_them():
    one, beside, after = Crossing("one", 0, 1), Crossing("beside", 0.5, 1.5), Crossing("after", 1, 2)
    assert sequence([after, beside, one]) == [["one", "beside"], ["after"]]


def test_a_round_trip_without_an_answer_does_not_count():
    assert sequence([Crossing("one", 0, 1), Crossing("lost", 1)]) == [["one"]]
