"""The credentials that the local AWS has issued. IAM needs a while to make new ones known everywhere."""

import html
import re
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from .http_messages import Reply

_PART = re.compile(rb"<(AccessKeyId|SecretAccessKey|SessionToken|Expiration|UserName)>([^<]+)</")


@dataclass(frozen=True)
class IssuedCredential:
    secret: str
    session_token: str | None = None
    expires: datetime | None = None
    user: str | None = None
    # When the session was issued, as IAM's condition key aws:TokenIssueTime says it.
    issued_at: datetime | None = None
    since: float = field(default_factory=time.monotonic)


class IssuedCredentials:
    def __init__(self):
        self.secrets: set[str] = set()
        self._by_id: dict[str, IssuedCredential] = {}

    def read(self, answer: Reply, duration: timedelta):
        """Reads the credentials from the reply to a call that creates them. `duration` is that of a session."""
        parts = {name.decode(): html.unescape(value.decode()) for name, value in _PART.findall(answer.body)}
        expires = datetime.fromisoformat(parts["Expiration"]) if "Expiration" in parts else None
        issued = IssuedCredential(
            parts["SecretAccessKey"],
            parts.get("SessionToken"),
            expires,
            parts.get("UserName"),
            expires - duration if expires else None,
        )
        self.add(parts["AccessKeyId"], issued)

    def add(self, id: str, issued: IssuedCredential):
        self._by_id[id] = issued
        self.secrets.update(secret for secret in (issued.secret, issued.session_token) if secret)

    def get(self, id: str) -> IssuedCredential | None:
        return self._by_id.get(id)

    def condition_keys(self, id: str) -> dict[str, str]:
        """What ministack doesn't know about the session: when it was issued."""
        issued = self._by_id.get(id)
        return {"aws:TokenIssueTime": issued.issued_at.isoformat()} if issued and issued.issued_at else {}

    def age(self, id: str) -> float:
        """In seconds; infinite for credentials that were not issued here."""
        issued = self._by_id.get(id)
        return time.monotonic() - issued.since if issued else float("inf")
