"""What ministack's STS doesn't check: whether a role's trust policy allows the source identity of a session."""

import json
from fnmatch import fnmatchcase
from urllib.parse import unquote

from .aws_replies import AwsRefusal, xml_error
from .http_messages import RecordedRequest, Reply
from .upstream import Upstream, form

_ACTION = "sts:SetSourceIdentity"


def refusal(upstream: Upstream, request: RecordedRequest) -> Reply | None:
    """STS's reply to an AssumeRole with a source identity that the role's trust policy doesn't allow."""
    asked = form(request)
    identity, arn = asked.get("SourceIdentity"), asked.get("RoleArn", "")
    if identity is None:
        return None
    try:
        role = upstream.root_query("iam", Action="GetRole", RoleName=arn.rpartition("/")[2])
    except AwsRefusal:
        return None  # ministack refuses the call as AWS does
    trust = json.loads(unquote(role.findtext(".//AssumeRolePolicyDocument")))
    found = trust["Statement"] if isinstance(trust["Statement"], list) else [trust["Statement"]]
    effects = {statement["Effect"] for statement in found if _covers(statement, identity)}
    if effects == {"Allow"}:
        return None
    message = f"User: the caller is not authorized to perform: {_ACTION} on resource: {arn}"
    return xml_error("sts", 403, "AccessDenied", message)


def _covers(statement: dict, identity: str) -> bool:
    """Without the principal and the other conditions, which ministack evaluates for AssumeRole itself."""
    if not any(fnmatchcase(_ACTION.lower(), action.lower()) for action in _list(statement["Action"])):
        return False
    conditions = statement.get("Condition", {})
    return all(
        any(fnmatchcase(identity, pattern) for pattern in _list(patterns))
        for operator in ("StringEquals", "StringLike")
        for key, patterns in conditions.get(operator, {}).items()
        if key.lower() == "sts:sourceidentity"
    )


def _list(value) -> list:
    return value if isinstance(value, list) else [value]
