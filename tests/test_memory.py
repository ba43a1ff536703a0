"""Which secrets are in the function's memory after a rotation. Without TLS here, its buffers are not included."""

import re
from pathlib import Path

import pytest
from support.kinds import KINDS, USER_BASED

# The buffers of an open connection keep what was sent last: the head of a request, and in the connection to Secrets
# Manager the staged value. Closing it after each call would cost a handshake per call.
SENT_LAST = (b"x-amz-security-token: ", b"authorization: Bearer ")
STAGED_LAST = (b'\\"aws_secret_access_key\\":\\"', b'\\"aws_session_token\\":\\"', b'\\"api_key\\":\\"')


def copies(pid, secret):
    """The bytes in front of each copy of the secret in the process's memory."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            start, end, mode, mapped = re.match(r"(\w+)-(\w+) (\S+) \S+ \S+ \S+ *(.*)", line).groups()
            if "w" not in mode or mapped.startswith("[v"):
                continue
            memory.seek(int(start, 16))
            content = memory.read(int(end, 16) - int(start, 16))
            found += [content[: at.start()][-32:] for at in re.finditer(re.escape(secret.encode()), content)]
    return found


def in_no_connection(found, staged=False):
    return [before for before in found if not before.endswith(SENT_LAST + (STAGED_LAST if staged else ()))]


@pytest.mark.parametrize(
    "kind, staged", [(kind, staged) for kind in KINDS for staged in (False, True) if staged or kind not in USER_BASED]
)
def test_after_a_rotation_the_new_secrets_are_not_in_memory(world, kind, staged):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target(kind, ai_secret) if staged else world.target(ai_secret, kind=kind)
    function, others = world.new_function(target), set(world.aws.issued_secrets)
    for _ in range(2):
        assert function.invoke({"action": "rotate", "force": True}).ok
    issued = world.aws.issued_secrets - others
    assert world.braintrust.credentials(ai_secret)["secret"] in issued or kind == "short_term_api_key"
    for secret in {*issued, world.braintrust.credentials(ai_secret)["secret"]}:
        assert in_no_connection(copies(function.pid, secret), staged) == []
        assert len(copies(function.pid, secret)) <= 2
    # The function keeps the API key once. Finding it shows that the search looks in the right place.
    assert len(in_no_connection(copies(function.pid, world.api_key))) == 1
