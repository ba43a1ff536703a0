"""The events that invoke the function."""

import uuid

FORCED = {"action": "rotate", "force": True}
ROLLBACK = {"action": "rollback", "targets": ["prod"]}


def scheduled_run() -> dict:
    """The event of a scheduled run, with an ID of its own."""
    return {"id": str(uuid.uuid4()), "source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}


def rotation_step(name: str, secret_id: str, token: str) -> dict:
    """The event with which Secrets Manager calls one step of a rotation."""
    return {"Step": name, "SecretId": secret_id, "ClientRequestToken": token}
