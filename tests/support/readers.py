"""The readers of an `ai_secret`, and the credentials with which each would call Bedrock.

They are the open-source proxy, in the three generations that self-hosted data planes run, and the gateway's router.
"""

from collections.abc import Callable

_KNOWN = {"access_key", "session_token", "region", "api_base", "models", "customModels", "supportedModels"}
_KNOWN_SINCE_AUTH_TYPE = _KNOWN | {"auth_type", "role_arn", "external_id"}
ROUTES = ["chat/completions", "completions", "anthropic/messages"]


class Unreadable(Exception):
    """The reader refuses the ai_secret, or sends an invalid request. Bedrock doesn't get usable credentials."""


def proxy_before_auth_type(ai_secret: dict, route: str) -> dict:
    """Before 2026-01-30: auth_type is unknown, and one route refuses every unknown field."""
    if route == "anthropic/messages":
        _refuse_unknown(ai_secret, _KNOWN)
    return _pair(ai_secret)


def strict_proxy(ai_secret: dict, route: str) -> dict:
    """From 2026-01-30 to 2026-03-08: every route refuses every unknown field."""
    _refuse_unknown(ai_secret, _KNOWN_SINCE_AUTH_TYPE)
    return todays_proxy(ai_secret, route)


def todays_proxy(ai_secret: dict, route: str) -> dict:
    """Since 2026-03-08: unknown fields are ignored."""
    return _key(ai_secret) if _auth_type(ai_secret) == "api_key" else _pair(ai_secret)


def gateway(ai_secret: dict, route: str) -> dict:
    """The gateway's router: like today's proxy, but it signs an empty session token, which Bedrock refuses."""
    credentials = todays_proxy(ai_secret, route)
    if credentials["auth_type"] != "api_key" and _metadata(ai_secret).get("session_token") == "":
        raise Unreadable("an empty x-amz-security-token is signed")
    return credentials


def read_by_project(providers: dict[str, dict], project: str, type: str = "bedrock") -> str | None:
    """The ID of the provider that all readers use in a project: its own, or else the organization's."""
    found = [provider for provider in providers.values() if provider["type"] == type]
    own = [p["id"] for p in found if p.get("object_id") == project and p["category"] == "ai_provider"]
    of_the_organization = [p["id"] for p in found if "object_id" not in p]
    return next(iter(own + of_the_organization), None)


READERS: dict[str, Callable[[dict, str], dict]] = {
    reader.__name__: reader for reader in (proxy_before_auth_type, strict_proxy, todays_proxy, gateway)
}


def _metadata(ai_secret: dict) -> dict:
    if not isinstance(ai_secret["metadata"], dict):
        raise Unreadable("there is no metadata")
    return ai_secret["metadata"]


def _refuse_unknown(ai_secret: dict, known: set[str]):
    if unknown := set(_metadata(ai_secret)) - known:
        raise Unreadable(f"unrecognized keys: {unknown}")


def _auth_type(ai_secret: dict) -> str:
    found = _metadata(ai_secret).get("auth_type", "iam_credentials")
    if found not in ("iam_credentials", "api_key"):
        raise Unreadable(f"auth_type {found!r}")
    return found


def _region(ai_secret: dict) -> str:
    if not (region := _metadata(ai_secret).get("region")):
        raise Unreadable("there is no region")
    return region


def _pair(ai_secret: dict) -> dict:
    if not (access_key := _metadata(ai_secret).get("access_key")):
        raise Unreadable("there is no access_key")
    return {
        "auth_type": "iam_credentials",
        "access_key": access_key,
        "secret": ai_secret["secret"],
        "session_token": _metadata(ai_secret).get("session_token") or None,
        "region": _region(ai_secret),
    }


def _key(ai_secret: dict) -> dict:
    return {"auth_type": "api_key", "secret": ai_secret["secret"], "region": _region(ai_secret)}
