"""Bedrock's API keys: long-term ones by status and expiry, short-term ones by recomputing their signature.

Their owner's policies must allow `bedrock:CallWithBearerToken` and the call itself. A user's permissions boundary is
ignored, because ministack's simulator, which decides about long-term keys, does not know it.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from urllib.parse import parse_qsl, quote

from .aws_replies import AwsRefusal, json_error
from .http_messages import RecordedRequest, Reply
from .issued_credentials import IssuedCredential, IssuedCredentials
from .local_iam import ACCOUNT, LocalIam, LongTermKey
from .upstream import Upstream

_HOST = "bedrock.amazonaws.com"
_SHORT_TERM = "bedrock-api-key-"
_MAY_USE_KEYS = "bedrock:CallWithBearerToken"
# From public reports of the real service, which answers the same for unknown, inactive and forged keys and for those
# of another region.
_INVALID = json_error(403, "AccessDeniedException", "Authentication failed: Please make sure your API Key is valid.")
_EXPIRED = json_error(403, "AccessDeniedException", "Bearer Token has expired")


def bearer(request: RecordedRequest) -> str | None:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key if scheme.lower() == "bearer" else None


class LocalBedrockKeys:
    def __init__(self, upstream: Upstream, iam: LocalIam, issued: IssuedCredentials, is_unknown: Callable[[str], bool]):
        self._upstream = upstream
        self._iam = iam
        self._issued = issued
        self._is_unknown = is_unknown

    def answer(self, api_key: str, request: RecordedRequest, region: str | None) -> Reply:
        """Bedrock's reply in `region`, or in the key's own region, to a request with the key."""
        try:
            if api_key.startswith(_SHORT_TERM):
                return self._with_short_term(api_key, request, region)
            return self._with_long_term(api_key, request, region or "us-east-1")
        except AwsRefusal as refused:
            return refused.answer

    def _with_long_term(self, api_key: str, request: RecordedRequest, region: str) -> Reply:
        key = self._iam.named_by(api_key)
        if key is None or self._is_unknown(key.id) or key.status == "Inactive":
            return _INVALID
        if key.expired:
            return _EXPIRED
        self._require(key, _MAY_USE_KEYS, "*")
        self._require(key, *_action_of(request, region))
        headers = {name: value for name, value in request.headers.items() if name in ("content-type", "accept")}
        return self._upstream.as_root("bedrock", region, request.method, request.target, request.body, **headers)

    def _require(self, key: LongTermKey, action: str, resource: str):
        arn = f"arn:aws:iam::{ACCOUNT}:user/{key.user}"
        answer = self._upstream.root_query(
            "iam",
            keys={"bedrock:BearerTokenType": "LONG_TERM"},
            **{"Action": "SimulatePrincipalPolicy", "Version": "2010-05-08", "PolicySourceArn": arn},
            **{"ActionNames.member.1": action, "ResourceArns.member.1": resource},
        )
        if answer.findtext(".//EvalDecision") != "allowed":
            message = f"User: {arn} is not authorized to perform: {action} on resource: {resource}"
            raise AwsRefusal(json_error(403, "AccessDeniedException", message))

    def _with_short_term(self, api_key: str, request: RecordedRequest, region: str | None) -> Reply:
        from botocore.credentials import Credentials

        query = _presigned(api_key)
        id, date, scope_region, *rest = query["X-Amz-Credential"].split("/")
        signer = self._issued.get(id)
        if signer is None or self._is_unknown(id) or region not in (None, scope_region):
            return _INVALID
        if rest != ["bedrock", "aws4_request"] or not _signature_matches(query, signer, date, scope_region):
            return _INVALID
        if _has_expired(query, signer):
            return _EXPIRED
        credentials = Credentials(id, signer.secret, signer.session_token)
        use = self._upstream.signed(credentials, "POST", f"/?Action={_MAY_USE_KEYS.partition(':')[2]}", scope_region)
        keys = {"bedrock:BearerTokenType": "SHORT_TERM", **self._issued.condition_keys(id)}
        if refusal := self._upstream.refusal(use, keys):
            return refusal
        call = self._upstream.signed(credentials, request.method, request.target, scope_region, request.body)
        return self._upstream.forward(call, keys)


def _action_of(request: RecordedRequest, region: str) -> tuple[str, str]:
    if model := re.fullmatch(r"/model/([^/]+)/(?:converse|invoke)", request.path):
        return "bedrock:InvokeModel", f"arn:aws:bedrock:{region}::foundation-model/{model[1]}"
    return request.call, "*"


def _presigned(api_key: str) -> dict[str, str]:
    """The query of the presigned request in the key, which must be exactly as the official generator writes it."""
    try:
        url = base64.b64decode(api_key.removeprefix(_SHORT_TERM), validate=True).decode()
        query = dict(parse_qsl(url.removeprefix(f"{_HOST}/?"), strict_parsing=True))
        names = ["Action", "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders"]
        names += ["X-Amz-Security-Token"] * ("X-Amz-Security-Token" in query) + ["X-Amz-Signature", "Version"]
        written = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in query.items())
    except ValueError:
        raise AwsRefusal(_INVALID) from None
    fixed = {
        "Action": "CallWithBearerToken",
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-SignedHeaders": "host",
        "Version": "1",
    }
    well_formed = list(query) == names and url == f"{_HOST}/?{written}" and fixed.items() <= query.items()
    if not (well_formed and re.fullmatch(r"[^/]+/\d{8}(/[^/]+){3}", query["X-Amz-Credential"])):
        raise AwsRefusal(_INVALID)
    return query


def _signature_matches(query: dict[str, str], signer: IssuedCredential, date: str, region: str) -> bool:
    """Whether the signer signed the request. `Version` is appended after signing."""
    if query.get("X-Amz-Security-Token") != signer.session_token or not query["X-Amz-Date"].startswith(date):
        return False
    signed = sorted((n, v) for n, v in query.items() if n not in ("X-Amz-Signature", "Version"))
    canonical_query = "&".join(f"{n}={quote(v, safe='-_.~')}" for n, v in signed)
    no_body = hashlib.sha256(b"").hexdigest()
    canonical = f"POST\n/\n{canonical_query}\nhost:{_HOST}\n\nhost\n{no_body}"
    scope = f"{date}/{region}/bedrock/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{query['X-Amz-Date']}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = b"AWS4" + signer.secret.encode()
    for part in (*scope.split("/"), to_sign):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.compare_digest(key.hex().encode(), query["X-Amz-Signature"].encode())


def _has_expired(query: dict[str, str], signer: IssuedCredential) -> bool:
    try:
        signed_at = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        raise AwsRefusal(_INVALID) from None
    seconds, now = query["X-Amz-Expires"], datetime.now(timezone.utc)
    ahead = signed_at - now > timedelta(minutes=5)
    if ahead or not (re.fullmatch(r"\d{1,5}", seconds) and 1 <= int(seconds) <= 43200):
        raise AwsRefusal(_INVALID)
    ends = [signed_at + timedelta(seconds=int(seconds)), *([signer.expires] if signer.expires else [])]
    return min(ends) <= now
