"""Braintrust's service tokens. Their keys are shown once, and stop working when the token is deleted."""

import copy
import secrets
import uuid
from collections.abc import Callable

from .braintrust_rest import BraintrustKey, BraintrustRefusal, body_of, id_in, org_of, page
from .http_messages import RecordedRequest

_COLLECTION = "/v1/service_token"
_FIELDS = {"name": str, "service_account_id": str, "org_name": str}
_PREFIX = "bt-st-"


class LocalServiceTokens:
    def __init__(self, keys: dict[str, BraintrustKey], now: Callable[[], str], missing_id_status: Callable[[], int]):
        self.routes = {
            f"GET {_COLLECTION}": self._list,
            f"POST {_COLLECTION}": self._create,
            f"GET {_COLLECTION}/{{id}}": self._read,
            f"DELETE {_COLLECTION}/{{id}}": self._delete,
        }
        self._keys = keys
        self._now = now
        self._missing_id_status = missing_id_status
        self._tokens: dict[str, dict] = {}
        self._key_of: dict[str, tuple[str, BraintrustKey]] = {}

    def add(self, name: str, service_account_id: str, key: BraintrustKey) -> tuple[str, str]:
        id, text = str(uuid.uuid4()), _PREFIX + secrets.token_urlsafe(32)
        self._tokens[id] = {
            "id": id,
            "created": self._now(),
            "name": name,
            "preview_name": f"{_PREFIX}...{text[-4:]}",
            "service_account_id": service_account_id,
            "service_account_email": None,
            "service_account_name": None,
            "org_id": str(uuid.uuid5(uuid.NAMESPACE_DNS, key.orgs[0])) if len(key.orgs) == 1 else None,
        }
        self._keys[text], self._key_of[id] = key, (text, key)
        return id, text

    def snapshot(self) -> dict[str, dict]:
        return copy.deepcopy(self._tokens)

    def _list(self, request: RecordedRequest, key: BraintrustKey) -> dict:
        return {"objects": page([t for t in reversed(self._tokens.values()) if self._sees(key, t)], request.query)}

    def _create(self, request: RecordedRequest, key: BraintrustKey) -> dict:
        # Every other key of the organization is refused, even an administrator's.
        if not request.headers["authorization"].startswith(f"Bearer {_PREFIX}"):
            raise BraintrustRefusal(
                403, "Forbidden: only a service token with owner permissions can make service tokens"
            )
        body = body_of(request, _FIELDS)
        if not (body.get("name") and body.get("service_account_id")):
            raise BraintrustRefusal(400, f"Missing name or service_account_id in {body}")
        org = BraintrustKey((org_of(body, key),), key.admin)
        accounts = {t["service_account_id"] for t in self._tokens.values() if self._sees(org, t)}
        if body["service_account_id"] not in accounts:
            raise BraintrustRefusal(400, "No such service account")
        id, text = self.add(body["name"], body["service_account_id"], org)
        return {**self._tokens[id], "key": text}

    def _read(self, request: RecordedRequest, key: BraintrustKey) -> dict:
        found = self._tokens.get(id_in(request.path)[1])
        if found is None or not self._sees(key, found):
            raise BraintrustRefusal(self._missing_id_status(), "No such service token")
        return found

    def _delete(self, request: RecordedRequest, key: BraintrustKey) -> dict:
        deleted = self._read(request, key)
        del self._tokens[deleted["id"]]
        text, _ = self._key_of.pop(deleted["id"])
        self._keys.pop(text, None)
        return deleted

    def _sees(self, key: BraintrustKey, token: dict) -> bool:
        return bool(set(self._key_of[token["id"]][1].orgs) & set(key.orgs))
