"""What one invocation of a Lambda function answered."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class InvocationResult:
    """`status` is 200, or 502 if the function crashed."""

    ok: bool
    body: Any
    status: int
    raw: bytes
    seconds: float

    @classmethod
    def read(cls, raw: bytes, status: int, seconds: float):
        try:
            body, is_json = json.loads(raw), True
        except ValueError:
            # The runtime's own text about a timeout or a crash.
            body, is_json = raw.decode(errors="replace"), False
        failed = isinstance(body, dict) and ("errorMessage" in body or "errorType" in body)
        return cls(status == 200 and is_json and not failed, body, status, raw, seconds)

    def report_in_error(self):
        """The report in the error's message, or the message itself if it isn't a report."""
        message = self.body["errorMessage"]
        try:
            return json.loads(message)
        except ValueError:
            return message
