"""A local Braintrust that keeps `ai_secret`s and projects' providers as the documentation of the real one says."""

import copy
import json
import threading
import time
import uuid
from collections import deque
from datetime import datetime, timedelta, timezone

from .braintrust_openapi import openapi
from .braintrust_rest import BraintrustKey, BraintrustRefusal, body_of, id_in, org_id, org_of, page
from .http_messages import RecordedRequest, Reply
from .local_ai_proxy import COMPLETIONS, LocalAiProxy
from .local_project_providers import LocalProjectProviders
from .local_service_tokens import LocalServiceTokens
from .recording_server import RecordingServer

COLLECTION = "/v1/ai_secret"
ORGANIZATIONS = "/v1/organization"
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
_FIELDS = {"name": str, "type": str, "metadata": dict, "secret": str, "org_name": str}


class LocalBraintrust(RecordingServer):
    def __init__(self, tls: tuple[str, str] | None = None, bedrock: str | None = None):
        super().__init__(tls)
        self.ai_proxy = LocalAiProxy(bedrock)
        # With the projects' own providers, which have an object_id.
        self.ai_secrets: dict[str, dict] = {}
        self.older_data_plane = False
        self.ignore_patches = False
        # For each of the next PATCHes, the only field that is carried out.
        self.partial_patches: list[str] = []
        self.ignored_filters: set[str] = set()
        self.missing_id_status = 404
        self.max_per_second: int | None = None
        self._keys: dict[str, BraintrustKey] = {}
        self._service_tokens = LocalServiceTokens(self._keys, self._now, lambda: self.missing_id_status)
        self.project_providers = LocalProjectProviders(
            self.ai_secrets, self._carry_out, self._shown, lambda: self.missing_id_status
        )
        self._answered: deque[float] = deque()
        self._last_change = datetime.min.replace(tzinfo=timezone.utc)
        self._lock = threading.RLock()
        # How the function's requests and the answers to them violate Braintrust's specification.
        self.violations: list[str] = []

    def add_key(self, key: str, orgs=("Acme",), admin: bool = True, projects: bool = True):
        self._keys[key] = BraintrustKey(tuple(orgs), admin, projects)

    def remove_key(self, key: str):
        self._keys.pop(key, None)

    def add_service_token(
        self, service_account_id: str, orgs=("Acme",), name: str = "token", owner: bool = True
    ) -> tuple[str, str]:
        """Returns the token's ID and key. Only an owner's token can create others."""
        with self._lock:
            return self._service_tokens.add(name, service_account_id, BraintrustKey(tuple(orgs), owner))

    @property
    def service_tokens(self) -> dict[str, dict]:
        """The service tokens by ID, as they are listed."""
        with self._lock:
            return self._service_tokens.snapshot()

    def add_ai_secret(self, name, org_name="Acme", type="bedrock", metadata=None, secret="") -> str:
        with self._lock:
            now = self._now()
            ai_secret = {
                "id": str(uuid.uuid4()),
                "org_id": org_id(org_name),
                "org_name": org_name,
                "name": name,
                "type": type,
                "created": now,
                "updated_at": now,
                "secret_updated_at": now,
                "metadata": copy.deepcopy(metadata),
                "secret": secret,
            }
            self.ai_secrets[ai_secret["id"]] = ai_secret
            return ai_secret["id"]

    def add_project(self, name="support-bot", org_name="Acme") -> str:
        with self._lock:
            return self.project_providers.add_project(name, org_name, self._now())

    def add_project_provider(self, project: str, name="AWS Bedrock", category="ai_provider", **fields) -> str:
        """Adds a provider to the project with this ID."""
        with self._lock:
            org_name = self.project_providers.projects[project]["org_name"]
            id = self.add_ai_secret(name, org_name, **fields)
            self.ai_secrets[id] |= {"object_type": "project", "object_id": project, "category": category}
            return id

    def change_by_hand(self, id: str, secret: str | None = None, **metadata):
        """Changes an ai_secret as somebody else might. Fields that are None are removed."""
        with self._lock:
            ai_secret = self.ai_secrets[id]
            changed = {**ai_secret["metadata"], **metadata}
            ai_secret["metadata"] = {name: value for name, value in changed.items() if value is not None}
            self._touch(ai_secret, {"secret": secret})

    def let_time_pass(self, id: str, passed: timedelta):
        """Makes the last changes of this ai_secret that much older."""
        with self._lock:
            for name in ("created", "updated_at", "secret_updated_at"):
                changed = datetime.fromisoformat(self.ai_secrets[id][name]) - passed
                self.ai_secrets[id][name] = changed.strftime(_TIME)

    def snapshot(self) -> dict[str, dict]:
        with self._lock:
            return copy.deepcopy(self.ai_secrets)

    def credentials(self, id: str) -> dict:
        """The credentials that Braintrust's gateway would use."""
        with self._lock:
            ai_secret = copy.deepcopy(self.ai_secrets[id])
        metadata = ai_secret["metadata"] or {}
        return {
            "auth_type": metadata.get("auth_type") or "iam_credentials",
            "access_key": metadata.get("access_key"),
            "secret": ai_secret["secret"],
            "session_token": metadata.get("session_token") or None,
            "region": metadata.get("region"),
        }

    def call_name(self, request: RecordedRequest) -> str:
        if request.path == COMPLETIONS:
            return f"{request.method} {COMPLETIONS}"
        collection, id = id_in(request.path)
        return f"{request.method} {collection}" + ("/{id}" if id else "")

    def inspect(self, request: RecordedRequest, reply: Reply | None):
        if reply and (specification := openapi()):
            self.violations += specification.violations(request, reply)

    def handle(self, request: RecordedRequest) -> Reply:
        with self._lock:
            if self._too_many():
                return Reply(429, "rate limit exceeded", {"retry-after": "1"}, content_type="text/plain")
        try:
            if request.call == f"POST {COMPLETIONS}":
                # Without the lock, because Bedrock may be slow.
                return self.ai_proxy.answer(request, self._key_of(request), lambda: self.snapshot().values())
            with self._lock:
                return self._route(request)
        except BraintrustRefusal as refused:
            return refused.answer

    def _too_many(self) -> bool:
        if self.max_per_second is None:
            return False
        now = time.monotonic()
        while self._answered and self._answered[0] <= now - 1:
            self._answered.popleft()
        if len(self._answered) >= self.max_per_second:
            return True
        self._answered.append(now)
        return False

    def _key_of(self, request: RecordedRequest) -> BraintrustKey:
        key = self._keys.get(request.headers.get("authorization", "").removeprefix("Bearer "))
        if key is None:
            raise BraintrustRefusal(401, "Unauthorized: unknown API key")
        return key

    def _route(self, request: RecordedRequest) -> Reply:
        key = self._key_of(request)
        routes = {
            f"GET {COLLECTION}": self._list,
            f"POST {COLLECTION}": self._create,
            f"PUT {COLLECTION}": self._replace,
            f"GET {COLLECTION}/{{id}}": self._read,
            f"PATCH {COLLECTION}/{{id}}": self._patch,
            f"GET {ORGANIZATIONS}": self._organizations,
            **self._service_tokens.routes,
            **self.project_providers.routes,
        }
        route = routes.get(request.call)
        if route is None:
            raise BraintrustRefusal(404, "Not found")
        of_a_project = request.call in self.project_providers.routes
        if request.method != "GET" and not key.admin and not of_a_project:
            raise BraintrustRefusal(403, "Forbidden: only organization admins can do this")
        return Reply(200, json.dumps(route(request, key)))

    def _list(self, request: RecordedRequest, key: BraintrustKey) -> dict:
        query = request.query
        found = [s for s in reversed(self.ai_secrets.values()) if s["org_name"] in key.orgs and "object_id" not in s]
        for parameter, name in [
            ("org_name", "org_name"),
            ("ai_secret_name", "name"),
            ("ai_secret_type", "type"),
            ("ids", "id"),
        ]:
            if parameter in query and parameter not in self.ignored_filters:
                found = [s for s in found if s[name] in query[parameter]]
        return {"objects": [self._shown(s) for s in page(found, query)]}

    def _organizations(self, request: RecordedRequest, key: BraintrustKey) -> dict:
        return {"objects": page([{"id": org_id(name), "name": name} for name in key.orgs], request.query)}

    def _read(self, request: RecordedRequest, key: BraintrustKey) -> dict:
        return self._shown(self._seen_by(request, key))

    def _create(self, request: RecordedRequest, key: BraintrustKey) -> dict:
        body = body_of(request, _FIELDS)
        org_name = org_of(body, key)
        if existing := self._named(body.get("name"), org_name):
            return self._shown(existing)
        return self._shown(self.ai_secrets[self._add(body, org_name)])

    def _replace(self, request: RecordedRequest, key: BraintrustKey) -> dict:
        body = body_of(request, _FIELDS)
        org_name = org_of(body, key)
        existing = self._named(body.get("name"), org_name)
        if existing is None:
            return self._shown(self.ai_secrets[self._add(body, org_name)])
        existing["type"] = body.get("type")
        existing["metadata"] = body.get("metadata")
        self._touch(existing, body)
        return self._shown(existing)

    def _patch(self, request: RecordedRequest, key: BraintrustKey) -> dict:
        ai_secret, body = self._seen_by(request, key), body_of(request, _FIELDS)
        self._carry_out(ai_secret, body)
        return self._shown(ai_secret)

    def _carry_out(self, ai_secret: dict, body: dict):
        if _has_null(body):
            raise BraintrustRefusal(400, f"Removing fields or setting them to null is not supported: {body}")
        if self.partial_patches:
            field = self.partial_patches.pop(0)
            body = {name: value for name, value in body.items() if name == field}
        if not self.ignore_patches:
            for name in ("name", "type"):
                ai_secret[name] = body.get(name, ai_secret[name])
            if "metadata" in body:
                ai_secret["metadata"] = _merged(ai_secret["metadata"], body["metadata"])
            self._touch(ai_secret, body)

    def _add(self, body: dict, org_name: str) -> str:
        if not body.get("name"):
            raise BraintrustRefusal(400, f"Missing name in {body}")
        return self.add_ai_secret(
            body["name"], org_name, body.get("type"), body.get("metadata"), body.get("secret") or ""
        )

    def _touch(self, ai_secret: dict, body: dict):
        ai_secret["updated_at"] = self._now()
        # The documentation says "when the encrypted value itself last changed", so the same value is no change.
        if body.get("secret") not in (None, ai_secret["secret"]):
            ai_secret["secret"] = body["secret"]
            ai_secret["secret_updated_at"] = ai_secret["updated_at"]

    def _seen_by(self, request: RecordedRequest, key: BraintrustKey) -> dict:
        ai_secret = self.ai_secrets.get(id_in(request.path)[1])
        if ai_secret is None or ai_secret["org_name"] not in key.orgs or "object_id" in ai_secret:
            raise BraintrustRefusal(self.missing_id_status, "No such ai_secret")
        return ai_secret

    def _named(self, name: str, org_name: str) -> dict | None:
        for ai_secret in self.ai_secrets.values():
            if (ai_secret["name"], ai_secret["org_name"]) == (name, org_name) and "object_id" not in ai_secret:
                return ai_secret
        return None

    def _shown(self, ai_secret: dict) -> dict:
        shown = {k: v for k, v in ai_secret.items() if k not in ("secret", "org_name")}
        shown["preview_secret"] = _preview(ai_secret["secret"])
        # A client must accept nulls and unknown fields.
        shown["secret_updated_by_user_id"] = None
        shown["added_later"] = {"nested": [None]}
        if self.older_data_plane:
            del shown["secret_updated_at"], shown["secret_updated_by_user_id"]
        return shown

    def _now(self) -> str:
        step = timedelta(microseconds=1)
        self._last_change = max(datetime.now(timezone.utc), self._last_change + step)
        return self._last_change.strftime(_TIME)


def _has_null(value) -> bool:
    if isinstance(value, dict):
        return any(_has_null(v) for v in value.values())
    return value is None


def _merged(old, new):
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return copy.deepcopy(new)
    return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}


def _preview(secret: str) -> str:
    return f"{secret[:3]}...{secret[-3:]}" if len(secret) > 12 else "********"
