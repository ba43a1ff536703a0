"""Every fault at every call of a rotation: it ends in time, nothing is lost, no secret is shown, and it heals by itself."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from disturbed import Rotation
from support.server import Answer, Delay, DropAfter, DropBefore, Endless, Relabel, Reset, Truncate
from test_crashes import KINDS
from test_secrets import echo

CASES = "faults at calls"
ROTATIONS = [("temporary", "memory"), *[(kind, "schedule") for kind in KINDS]]
HTML = {"body": "<html><body>Sign in to your proxy</body></html>", "content_type": "text/html"}
ONCE = {
    "an answer after the attempt": Delay(10.5),
    "an answer after the deadline": Delay(6),
    "a connection dropped before": DropBefore(),
    "a connection dropped after": DropAfter(),
    "a reset before": Reset(acts=False),
    "a reset after": Reset(acts=True),
    "a truncated answer": Truncate(),
    "an endless answer": Endless(),
    "an empty answer": Answer(200),
    "another content type": Relabel("text/plain"),
    "HTML": Answer(200, **HTML),
    "HTML with 502": Answer(502, **HTML),
    "429": Answer(429, echo, {"retry-after": "1", "x-amzn-errortype": "ThrottlingException"}),
    "500": Answer(500, echo),
    "503": Answer(503, echo),
}
STAYS = ["a reset after", "HTML", "503"]
STAY_IN = [("temporary", "memory"), ("temporary", "rotation"), ("access_key", "schedule"), ("access_key", "rotation")]
UNTRUSTED = {
    "AWS_ENDPOINT_URL_STS": "short_term_api_key",
    "AWS_ENDPOINT_URL_IAM": "access_key",
    "AWS_ENDPOINT_URL_SECRETS_MANAGER": "access_key",
    "AWS_ENDPOINT_URL_BEDROCK": "long_term_api_key",
    "BRAINTRUST_API_URL": "long_term_api_key",
}
SECONDS = 20
# Lambda's timeout where a fault would outlast any other.
FEW_SECONDS = 6
SIDE_BY_SIDE = 12
CALLS = {}


def due(bench, kind, trigger, number):
    """So many rotations; one tick of one function gives all of them their first credentials."""
    rotations = [Rotation(bench, kind, trigger) for _ in range(number)]
    bench.rotate(*[rotation.target for rotation in rotations])
    return rotations


def calls_of(bench, kind, trigger):
    """How often an undisturbed rotation makes which call."""
    if (kind, trigger) not in CALLS:
        [rotation] = due(bench, kind, trigger, 1)
        rotation.begin(SECONDS)
        assert rotation.run(), rotation.function.logs()
        CALLS[kind, trigger] = Counter(request.call for request in rotation.front.requests)
    return CALLS[kind, trigger]


def disturb(rotation, call, fault, times, skip):
    is_short = times is None or fault == ONCE["an answer after the deadline"]
    rotation.begin(FEW_SECONDS if is_short else SECONDS)
    rotation.front.fail(call, fault, times, skip)
    rotation.run()
    if [request.call for request in rotation.front.requests].count(call) <= skip:
        rotation.wrong.append("the fault was not reached")
    if isinstance(fault, Delay):
        time.sleep(2)  # until what came too late has been acted on
    rotation.check("after the fault")
    rotation.recover()
    rotation.stop()
    rotation.check_what_is_shown()
    return [f"{call} ({skip}): {wrong}" for wrong in rotation.wrong]


def go_through(bench, kind, trigger, places, fault, times):
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        begun = due(bench, kind, trigger, len(places))
        runs = [
            pool.submit(disturb, rotation, call, fault, times, skip)
            for rotation, (call, skip) in zip(begun, places, strict=True)
        ]
    wrong = [line for run in runs for line in run.result()]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("kind", "trigger"), ROTATIONS)
@pytest.mark.parametrize("fault", ONCE)
def test_a_rotation_survives_at_any_call(bench, fault, kind, trigger, record_property):
    places = [(call, n) for call, number in calls_of(bench, kind, trigger).items() for n in range(number)]
    go_through(bench, kind, trigger, places, ONCE[fault], 1)
    record_property(CASES, len(places))


@pytest.mark.parametrize(("kind", "trigger"), STAY_IN)
@pytest.mark.parametrize("fault", STAYS)
def test_a_rotation_survives_for_good_at_any_call(bench, fault, kind, trigger, record_property):
    places = [(call, 0) for call in calls_of(bench, kind, trigger)]
    go_through(bench, kind, trigger, places, ONCE[fault], None)
    record_property(CASES, len(places))


@pytest.mark.parametrize("service", UNTRUSTED)
def test_a_rotation_survives_an_untrusted_certificate(bench, private, service, record_property):
    [rotation] = due(bench, UNTRUSTED[service], "schedule", 1)
    rotation.begin(FEW_SECONDS, **{service: private[0].url})
    assert not rotation.run() and private[0].requests == []
    rotation.check("after the fault")
    rotation.stop()
    rotation.start(SECONDS)
    rotation.recover()
    rotation.stop()
    rotation.check_what_is_shown()
    record_property(CASES, 1)
    assert not rotation.wrong
