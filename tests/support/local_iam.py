"""What ministack's IAM lacks: two access keys at most, keys that age, and service-specific credentials."""

import base64
import itertools
import re
import secrets
import threading
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

from .aws_replies import AwsRefusal, xml_error, xml_result
from .http_messages import RecordedRequest, Reply
from .issued_credentials import IssuedCredential, IssuedCredentials
from .upstream import Upstream, form, signer

ACCOUNT = "000000000000"
_BEDROCK = "bedrock.amazonaws.com"
_LIMIT = 2
_LISTED_KEY = re.compile(rb"<member>.*?</member>", re.DOTALL)
_KEY_ID = re.compile(rb"<AccessKeyId>([^<]+)<")
_CREATE_DATE = re.compile(rb"(?<=<CreateDate>)[^<]+")


@dataclass
class LongTermKey:
    """A long-term Bedrock API key; `secret` is the key itself."""

    id: str
    user: str
    alias: str
    secret: str
    created: datetime
    expires: datetime | None
    active: bool = True

    @property
    def expired(self) -> bool:
        return self.expires is not None and self.expires <= _now()

    @property
    def status(self) -> str:
        if self.expired:
            return "Expired"
        return "Active" if self.active else "Inactive"

    def shown(self) -> dict:
        return {
            "CreateDate": iso8601(self.created),
            "ExpirationDate": self.expires and iso8601(self.expires),
            "ServiceName": _BEDROCK,
            "ServiceUserName": f"{self.user}-at-{ACCOUNT}",
            "ServiceCredentialAlias": self.alias,
            "ServiceSpecificCredentialId": self.id,
            "UserName": self.user,
            "Status": self.status,
        }


class LocalIam:
    def __init__(self, upstream: Upstream, issued: IssuedCredentials):
        self.api_keys: dict[str, LongTermKey] = {}
        self._upstream = upstream
        self._issued = issued
        self._aged: dict[str, timedelta] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def answer(self, request: RecordedRequest) -> Reply | None:
        """The reply to the calls that are added here; None for those that ministack implements."""
        action = request.call.removeprefix("iam:")
        call = {
            "CreateServiceSpecificCredential": self._create,
            "ListServiceSpecificCredentials": self._list,
            "UpdateServiceSpecificCredential": self._update,
            "DeleteServiceSpecificCredential": self._delete,
            "ResetServiceSpecificCredential": self._reset,
        }.get(action)
        try:
            if action == "CreateAccessKey":
                return self._create_access_key(request)
            if action == "ListAccessKeys":
                return self._list_access_keys(request)
            if call is None:
                return None
            asked = form(request)
            if refusal := self._upstream.refusal(request, _condition_keys(asked)):
                return refusal
            asked.setdefault("UserName", self._user_of(request))
            with self._lock:
                return xml_result("iam", action, call(asked))
        except AwsRefusal as refused:
            return refused.answer

    def boundary_of_role(self, request: RecordedRequest) -> dict[str, str]:
        """The condition key with the permissions boundary of the role that a call names, if it has one."""
        name = {"RoleName": form(request).get("RoleName", "")}
        role = self._upstream.root_query("iam", Action="GetRole", Version="2010-05-08", **name)
        boundary = role.findtext(".//PermissionsBoundaryArn")
        return {"iam:PermissionsBoundary": boundary} if boundary else {}

    def named_by(self, secret: str) -> LongTermKey | None:
        with self._lock:
            return next((key for key in self.api_keys.values() if key.secret == secret), None)

    def let_time_pass(self, user: str, passed: timedelta):
        """Makes the user's keys that much older."""
        listed = self._upstream.root_query("iam", Action="ListAccessKeys", Version="2010-05-08", UserName=user)
        with self._lock:
            for id in listed.iterfind(".//AccessKeyMetadata/member/AccessKeyId"):
                self._aged[id.text] = self._aged.get(id.text, timedelta()) + passed
            for key in self.api_keys.values():
                if key.user == user:
                    key.created -= passed

    def _list_access_keys(self, request: RecordedRequest) -> Reply:
        answer = self._upstream.forward(request)
        return replace(answer, body=_LISTED_KEY.sub(self._with_its_age, answer.body))

    def _with_its_age(self, listed: re.Match) -> bytes:
        id = _KEY_ID.search(listed[0])
        aged = self._aged.get(id[1].decode()) if id else None
        if aged is None:
            return listed[0]
        return _CREATE_DATE.sub(
            lambda date: iso8601(datetime.fromisoformat(date[0].decode()) - aged).encode(), listed[0]
        )

    def _create_access_key(self, request: RecordedRequest) -> Reply:
        if refusal := self._upstream.refusal(request):
            return refusal
        with self._lock:
            user = {name: value for name, value in form(request).items() if name == "UserName"}
            listed = self._upstream.root_query("iam", Action="ListAccessKeys", Version="2010-05-08", **user)
            if len(listed.findall(".//AccessKeyMetadata/member")) >= _LIMIT:
                raise AwsRefusal(_limit_exceeded("AccessKeysPerUser"))
            return self._upstream.forward(request)

    def _create(self, asked: dict) -> dict:
        user = _named_user(asked)
        self._upstream.root_query("iam", Action="GetUser", Version="2010-05-08", UserName=user)
        if asked.get("ServiceName") != _BEDROCK:
            message = f"No such service {asked.get('ServiceName')} is supported for Service Specific Credentials"
            raise AwsRefusal(xml_error("iam", 404, "NotSupportedService", message))
        days = asked.get("CredentialAgeDays")
        if days is not None and not (days.isdigit() and 1 <= int(days) <= 36600):
            raise _invalid("CredentialAgeDays must be between 1 and 36600")
        if len([key for key in self.api_keys.values() if key.user == user]) >= _LIMIT:
            raise AwsRefusal(_limit_exceeded("ServiceSpecificCredentialsPerUser"))
        now = _now()
        key = LongTermKey(
            id="ACCA" + secrets.token_hex(8).upper(),
            user=user,
            alias=f"{user}+{next(self._numbers)}-at-{ACCOUNT}",
            secret="",
            created=now,
            expires=now + timedelta(days=int(days)) if days else None,
        )
        self.api_keys[key.id] = key
        return self._with_new_secret(key)

    def _list(self, asked: dict) -> dict:
        wanted = asked.get("ServiceName", _BEDROCK)
        all_users = asked.get("AllUsers") == "true"
        user = None if all_users else _named_user(asked)
        if user:
            self._upstream.root_query("iam", Action="GetUser", Version="2010-05-08", UserName=user)
        found = [key.shown() for key in self.api_keys.values() if user in (None, key.user) and wanted == _BEDROCK]
        size, start = asked.get("MaxItems", "100"), asked.get("Marker", "0")
        if not (size.isdigit() and 1 <= int(size) <= 1000 and start.isdigit()):
            raise _invalid("Invalid MaxItems or Marker")
        end = int(start) + int(size)
        more = end < len(found)
        return {
            "ServiceSpecificCredentials": found[int(start) : end],
            "IsTruncated": more,
            "Marker": str(end) if more else None,
        }

    def _update(self, asked: dict):
        if asked.get("Status") not in ("Active", "Inactive"):
            raise _invalid("Status must be Active or Inactive")
        self._existing(asked).active = asked["Status"] == "Active"

    def _delete(self, asked: dict):
        del self.api_keys[self._existing(asked).id]

    def _reset(self, asked: dict) -> dict:
        return self._with_new_secret(self._existing(asked))

    def _existing(self, asked: dict) -> LongTermKey:
        key = self.api_keys.get(asked.get("ServiceSpecificCredentialId"))
        # A request without a user name identifies the key by its ID alone.
        if key is None or asked["UserName"] not in ("", key.user):
            message = f"Service specific credential {asked.get('ServiceSpecificCredentialId')} cannot be found."
            raise AwsRefusal(xml_error("iam", 404, "NoSuchEntity", message))
        return key

    def _with_new_secret(self, key: LongTermKey) -> dict:
        key.secret = "ABSK" + base64.b64encode(f"{key.alias}:{secrets.token_urlsafe(24)}".encode()).decode()
        self._issued.add(key.id, IssuedCredential(key.secret))
        return {"ServiceSpecificCredential": {**key.shown(), "ServiceCredentialSecret": key.secret}}

    def _user_of(self, request: RecordedRequest) -> str:
        issued = self._issued.get(signer(request)[0])
        return issued.user or "" if issued else ""


def _condition_keys(asked: dict) -> dict[str, str]:
    keys = {"ServiceName": "ServiceName", "AgeDays": "CredentialAgeDays"}
    prefix = "iam:ServiceSpecificCredential"
    return {prefix + key: asked[parameter] for key, parameter in keys.items() if parameter in asked}


def _named_user(asked: dict) -> str:
    if not asked["UserName"]:
        raise _invalid("Must specify userName when calling with non-User credentials")
    return asked["UserName"]


def _limit_exceeded(quota: str) -> Reply:
    return xml_error("iam", 409, "LimitExceeded", f"Cannot exceed quota for {quota}: {_LIMIT}")


def _invalid(message: str) -> AwsRefusal:
    return AwsRefusal(xml_error("iam", 400, "ValidationError", message))


def _now() -> datetime:
    return datetime.now(timezone.utc)


def iso8601(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
