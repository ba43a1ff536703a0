"""The forms in which a secret could leave the function, and an error body that echoes secrets."""

import base64
import json
import urllib.parse
from collections.abc import Iterator

from .http_messages import RecordedRequest


def forms(secret: str) -> Iterator[bytes]:
    """The secret as it is, URL-encoded, as JSON escapes it, and in base64 at each alignment."""
    raw = secret.encode()
    yield raw
    yield urllib.parse.quote(secret, safe="").encode()
    yield urllib.parse.quote_plus(secret).encode()
    yield json.dumps(secret)[1:-1].encode()
    for shift in range(3):
        # The characters at both ends depend on what surrounds the secret.
        whole = base64.b64encode(b"x" * shift + raw)
        yield whole[4 if shift else 0 : len(whole) - 4]


def echo(request: RecordedRequest) -> bytes:
    """An error's body that repeats the request, as Braintrust's can."""
    return request.body + request.headers.get("authorization", "").encode()
