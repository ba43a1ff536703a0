"""Replies in the formats of AWS: XML of the query protocol, and JSON."""

import json
from xml.sax.saxutils import escape

from .http_messages import Reply

_REQUEST_ID = "00000000-0000-0000-0000-000000000000"
_NAMESPACES = {
    "iam": "https://iam.amazonaws.com/doc/2010-05-08/",
    "sts": "https://sts.amazonaws.com/doc/2011-06-15/",
}


class AwsRefusal(Exception):
    """Carries the reply that refuses the call."""

    def __init__(self, answer: Reply):
        super().__init__(f"{answer.status} {answer.body!r}")
        self.answer = answer


def xml_error(service: str, status: int, code: str, message: str) -> Reply:
    error = {"Error": {"Type": "Sender", "Code": code, "Message": message}, "RequestId": _REQUEST_ID}
    return _xml(service, status, "ErrorResponse", error)


def xml_result(service: str, action: str, result: dict | None = None) -> Reply:
    content = {"ResponseMetadata": {"RequestId": _REQUEST_ID}}
    if result is not None:
        content = {f"{action}Result": result, **content}
    return _xml(service, 200, f"{action}Response", content)


def json_error(status: int, code: str, message: str) -> Reply:
    # Services name the error in the header, and ministack and older services in the body. SDKs read both.
    body = {"__type": code, "message": message, "Message": message}
    return Reply(status, json.dumps(body), {"x-amzn-ErrorType": code})


def json_result(result: dict) -> Reply:
    return Reply(200, json.dumps(result), content_type="application/x-amz-json-1.1")


def _xml(service: str, status: int, name: str, content: dict) -> Reply:
    body = f'<{name} xmlns="{_NAMESPACES[service]}">{_elements(content)}</{name}>'
    return Reply(status, body, content_type="text/xml")


def _elements(value) -> str:
    if isinstance(value, dict):
        return "".join(f"<{name}>{_elements(v)}</{name}>" for name, v in value.items() if v is not None)
    if isinstance(value, list):
        return "".join(f"<member>{_elements(v)}</member>" for v in value)
    return escape(str(value).lower() if isinstance(value, bool) else str(value))


FORBIDDEN_PROBE = json_error(
    403, "AccessDeniedException", "User: x is not authorized to perform: bedrock:ListFoundationModels"
)
