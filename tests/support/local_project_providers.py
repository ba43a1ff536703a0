"""A local Braintrust's projects, and their own providers, which the API calls env_vars."""

import uuid
from collections.abc import Callable

from .braintrust_rest import BraintrustKey, BraintrustRefusal, body_of, id_in, org_id, page
from .http_messages import RecordedRequest

PROJECTS = "/v1/project"
ENV_VARS = "/v1/env_var"
_FIELDS = {"name": str, "value": str, "metadata": dict, "secret_type": str}
_NOT_OF_AN_ENV_VAR = ("secret", "org_id", "org_name", "type", "updated_at", "category")


class LocalProjectProviders:
    """`providers` are those of the whole Braintrust: a project's own has `object_id`. `patch` carries out a PATCH."""

    def __init__(
        self,
        providers: dict[str, dict],
        patch: Callable[[dict, dict], None],
        shown: Callable[[dict], dict],
        missing_id_status: Callable[[], int],
    ):
        self.projects: dict[str, dict] = {}
        # The names of filters that an older data plane ignores.
        self.ignored_filters: set[str] = set()
        self._providers = providers
        self._patch = patch
        self._shown = shown
        self._missing_id_status = missing_id_status
        self.routes = {
            f"GET {PROJECTS}": self._list_projects,
            f"GET {ENV_VARS}": self._list,
            f"GET {ENV_VARS}/{{id}}": self._read,
            f"PATCH {ENV_VARS}/{{id}}": self._change,
        }

    def add_project(self, name: str, org_name: str, created: str) -> str:
        id = str(uuid.uuid4())
        self.projects[id] = {
            "id": id,
            "org_id": org_id(org_name),
            "org_name": org_name,
            "name": name,
            "created": created,
            "deleted_at": None,
            "settings": None,
        }
        return id

    def _list_projects(self, request: RecordedRequest, key: BraintrustKey) -> dict:
        self._require_projects(key)
        found = [project for project in reversed(self.projects.values()) if project["org_name"] in key.orgs]
        found = self._filtered(found, request, {"project_name": "name", "org_name": "org_name", "ids": "id"})
        shown = [{k: v for k, v in project.items() if k != "org_name"} for project in page(found, request.query)]
        return {"objects": shown}

    def _list(self, request: RecordedRequest, key: BraintrustKey) -> dict:
        """There are no cursors, only a limit."""
        self._require_projects(key)
        found = [provider for provider in reversed(self._providers.values()) if self._is_seen(provider, key)]
        filters = {"env_var_name": "name", "object_type": "object_type", "object_id": "object_id", "ids": "id"}
        found = self._filtered(found, request, filters)
        limit = {"limit": request.query["limit"]} if "limit" in request.query else {}
        return {"objects": [self._as_env_var(provider) for provider in page(found, limit)]}

    def _read(self, request: RecordedRequest, key: BraintrustKey) -> dict:
        self._require_projects(key)
        return self._as_env_var(self._seen_by(request, key))

    def _change(self, request: RecordedRequest, key: BraintrustKey) -> dict:
        self._require_projects(key)
        provider, body = self._seen_by(request, key), body_of(request, _FIELDS)
        if not body.get("name"):
            raise BraintrustRefusal(400, f"Missing name in {body}")
        renamed = {"value": "secret", "secret_type": "type"}
        self._patch(provider, {renamed.get(field, field): value for field, value in body.items()})
        return self._as_env_var(provider)

    def _filtered(self, found: list[dict], request: RecordedRequest, filters: dict[str, str]) -> list[dict]:
        for parameter, field in filters.items():
            if parameter in request.query and parameter not in self.ignored_filters:
                found = [object for object in found if object[field] in request.query[parameter]]
        return found

    def _require_projects(self, key: BraintrustKey):
        if not key.projects:
            raise BraintrustRefusal(403, "Forbidden: no access to projects")

    def _is_seen(self, provider: dict, key: BraintrustKey) -> bool:
        return "object_id" in provider and provider["org_name"] in key.orgs

    def _seen_by(self, request: RecordedRequest, key: BraintrustKey) -> dict:
        provider = self._providers.get(id_in(request.path)[1])
        if provider is None or not self._is_seen(provider, key):
            raise BraintrustRefusal(self._missing_id_status(), "No such env_var")
        return provider

    def _as_env_var(self, provider: dict) -> dict:
        shown = {field: value for field, value in self._shown(provider).items() if field not in _NOT_OF_AN_ENV_VAR}
        return shown | {"secret_type": provider["type"], "secret_category": provider["category"], "used": None}
