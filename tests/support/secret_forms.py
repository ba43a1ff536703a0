"""The forms in which a secret could leave the function, and an error body that echoes secrets."""

import base64
import json
import urllib.parse
from collections.abc import Iterator

from .aws_replies import json_error, xml_error
from .http_messages import RecordedRequest, Reply


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


def denied_with_echo(service: str) -> Reply:
    """A denial whose message repeats the request, in the format of the service."""

    def body(request: RecordedRequest) -> bytes:
        headers = "\n".join(f"{name}: {value}" for name, value in request.headers.items())
        message = f"User: x is not authorized to perform: x on {headers} {request.body.decode()}"
        denial = (
            json_error(403, "AccessDeniedException", message)
            if service == "bedrock"
            else xml_error(service, 403, "AccessDenied", message)
        )
        return denial.body.encode()

    return Reply(403, body)
