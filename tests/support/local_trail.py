"""The events that CloudTrail would record for the requests to the local AWS, and CloudTrail Lake's SQL on them."""

import json
import re
import sqlite3
from datetime import datetime, timezone
from xml.etree import ElementTree

import sqlglot
from sqlglot import expressions

from .http_messages import RecordedRequest, Reply
from .local_cloud import LocalCloud
from .upstream import form, signer

_TAG = re.compile(r"Tags\.member\.(\d+)\.(Key|Value)")
_MODEL = re.compile(r"/model/([^/]+)/")
# The elements of a response that CloudTrail shows, without their secrets.
_ISSUED = {
    "AssumeRole": ("credentials", "Credentials/AccessKeyId", "accessKeyId"),
    "CreateAccessKey": ("accessKey", "AccessKey/AccessKeyId", "accessKeyId"),
    "CreateServiceSpecificCredential": (
        "serviceSpecificCredential",
        "ServiceSpecificCredential/ServiceSpecificCredentialId",
        "serviceSpecificCredentialId",
    ),
}


class LocalTrail:
    """Records from its creation on. Its calls to Bedrock are those with which the function proves credentials."""

    def __init__(self, cloud: LocalCloud):
        self.events: list[dict] = []
        self._sessions: dict[str, dict] = {}
        self._inspect = cloud.aws.inspect
        cloud.aws.inspect = self._record
        self._aws = cloud.aws

    def stop(self):
        self._aws.inspect = self._inspect

    def _record(self, request: RecordedRequest, reply: Reply | None):
        self._inspect(request, reply)
        if reply is not None:
            self.events.append(self._event(request, reply))

    def _event(self, request: RecordedRequest, reply: Reply) -> dict:
        service, _, name = request.call.partition(":")
        asked, access_key_id = _parameters(request), signer(request)[0]
        identity = {"accessKeyId": access_key_id, **self._sessions.get(access_key_id, {})}
        event = {
            "eventTime": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "eventSource": f"{service}.amazonaws.com",
            "eventName": name,
            "requestID": request.id,
            "userIdentity": identity,
            "sourceIPAddress": "127.0.0.1",
            "userAgent": request.headers.get("user-agent"),
            "errorCode": None if reply.status < 400 else "AccessDenied",
            "requestParameters": asked,
            "responseElements": None,
        }
        if name in _ISSUED and reply.status == 200:
            element, path, shown = _ISSUED[name]
            body = reply.body if isinstance(reply.body, bytes) else reply.body.encode()
            root = ElementTree.fromstring(re.sub(rb' xmlns="[^"]*"', b"", body))
            id = root.findtext(f".//{path}")
            event["responseElements"] = {element: {shown: id}}
            if name == "AssumeRole":
                self._sessions[id] = {
                    "arn": root.findtext(".//AssumedRoleUser/Arn"),
                    "sessionContext": {"sourceIdentity": asked.get("sourceIdentity")},
                }
        return event

    def query(self, sql: str) -> list[dict]:
        """The rows of a query in the dialect of CloudTrail Lake."""
        database = sqlite3.connect(":memory:")
        database.row_factory = sqlite3.Row
        columns = list(self.events[0])
        database.execute(f"CREATE TABLE event_data_store ({', '.join(columns)})")
        for event in self.events:
            values = [json.dumps(v) if isinstance(v, dict) else v for v in (event[name] for name in columns)]
            database.execute(f"INSERT INTO event_data_store VALUES ({', '.join('?' * len(columns))})", values)
        for_sqlite = sqlglot.parse_one(sql, dialect="trino").transform(_on_json).sql(dialect="sqlite")
        return [dict(row) for row in database.execute(for_sqlite)]


def _on_json(node: expressions.Expression) -> expressions.Expression:
    """Reads structures and maps, which SQLite doesn't have, from columns of JSON."""
    match node:
        case expressions.Column():
            column, *path = (part.name for part in node.parts)
        case expressions.Bracket():  # element_at
            column, path = node.this.name, [node.expressions[0].name]
        case _:
            return node
    if not path:
        return node
    return sqlglot.parse_one(f"json_extract({column}, '$.{'.'.join(path)}')", dialect="sqlite")


def _parameters(request: RecordedRequest) -> dict:
    """As CloudTrail shows them: names begin in lowercase, and the secrets are left out."""
    if request.headers.get("x-amz-target"):
        asked = request.json()
        asked.pop("SecretString", None)
        return {_lower(name): value for name, value in asked.items()}
    tags, asked = {}, {}
    if model := _MODEL.match(request.path):
        asked["modelId"] = model[1]
    for name, value in form(request).items():
        if tag := _TAG.fullmatch(name):
            tags.setdefault(tag[1], {})[tag[2].lower()] = value
        else:
            asked[_lower(name)] = value
    return asked | ({"tags": list(tags.values())} if tags else {})


def _lower(name: str) -> str:
    return name[:1].lower() + name[1:]
