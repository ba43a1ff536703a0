"""Parts that Braintrust's endpoints share: keys, refusals, bodies and pages."""

import re
import uuid
from dataclasses import dataclass

from .http_messages import RecordedRequest, Reply


@dataclass(frozen=True)
class BraintrustKey:
    orgs: tuple[str, ...]
    admin: bool
    # Whether it may list projects, and read and update what is in them.
    projects: bool = True


class BraintrustRefusal(Exception):
    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.answer = Reply(status, text, content_type="text/plain")


def org_id(org_name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, org_name))


def id_in(path: str) -> tuple[str, str]:
    """The collection, and the ID or an empty string."""
    found = re.fullmatch(r"(/v1/[^/]+)(?:/(.+))?", path)
    return (found[1], found[2] or "") if found else (path, "")


def body_of(request: RecordedRequest, accepted: dict[str, type]) -> dict:
    try:
        body = request.json()
        well_formed = all(v is None or isinstance(v, accepted[k]) for k, v in body.items())
    except (ValueError, KeyError, AttributeError):
        well_formed = False
    if not well_formed:
        raise BraintrustRefusal(400, f"Malformed request: {request.body.decode(errors='replace')}")
    return body


def org_of(body: dict, key: BraintrustKey) -> str:
    org_name = body.get("org_name")
    if org_name is None and len(key.orgs) == 1:
        return key.orgs[0]
    if org_name not in key.orgs:
        raise BraintrustRefusal(400, f"org_name must be one of {key.orgs}")
    return org_name


def page(found: list[dict], query: dict[str, list[str]]) -> list[dict]:
    limit = _limit(query)
    if after := query.get("starting_after"):
        return found[_position(found, after[0]) + 1 :][:limit]
    if before := query.get("ending_before"):
        found = found[: _position(found, before[0])]
        return found if limit is None else found[max(0, len(found) - limit) :]
    return found[:limit]


def _limit(query: dict[str, list[str]]) -> int | None:
    try:
        return int(query["limit"][0]) if "limit" in query else None
    except ValueError:
        raise BraintrustRefusal(400, "limit must be a number") from None


def _position(found: list[dict], id: str) -> int:
    for position, object in enumerate(found):
        if object["id"] == id:
            return position
    raise BraintrustRefusal(400, f"No such cursor: {id}")
