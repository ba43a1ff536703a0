"""Remembers the credentials that AWS handed out, which IAM makes known everywhere only after a while."""

import html
import re
import time
from dataclasses import dataclass, field
from datetime import datetime

from .server import Answer

_PART = re.compile(rb"<(AccessKeyId|SecretAccessKey|SessionToken|Expiration|UserName)>([^<]+)</")


@dataclass(frozen=True)
class Minted:
    secret: str
    session_token: str | None = None
    expires: datetime | None = None
    user: str | None = None
    since: float = field(default_factory=time.monotonic)


class MintedCredentials:
    def __init__(self):
        self.secrets: set[str] = set()
        self._by_id: dict[str, Minted] = {}

    def read(self, answer: Answer):
        """Takes the credentials out of the answer of a call that makes them."""
        parts = {name.decode(): html.unescape(value.decode()) for name, value in _PART.findall(answer.body)}
        expires = parts.get("Expiration")
        minted = Minted(
            parts["SecretAccessKey"],
            parts.get("SessionToken"),
            datetime.fromisoformat(expires) if expires else None,
            parts.get("UserName"),
        )
        self.add(parts["AccessKeyId"], minted)

    def add(self, id: str, minted: Minted):
        self._by_id[id] = minted
        self.secrets.update(secret for secret in (minted.secret, minted.session_token) if secret)

    def get(self, id: str) -> Minted | None:
        return self._by_id.get(id)

    def age(self, id: str) -> float:
        """In seconds; endless for what was not handed out here."""
        minted = self._by_id.get(id)
        return time.monotonic() - minted.since if minted else float("inf")
