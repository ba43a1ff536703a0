"""Interrupted rotations, and the orphaned key that one leaves behind: in Braintrust, but not current."""

import json

from .events import scheduled_run
from .http_messages import Reply
from .reports import outcome
from .world import World


def interrupt_after_set(world: World, function, event: dict):
    """Runs a rotation that writes to Braintrust and can't promote its version."""
    world.aws.fail("secretsmanager:UpdateSecretVersionStage", Reply(403), times=None)
    assert not function.invoke(event).ok
    world.aws.clear_faults()


def orphan_key(world: World, target: dict):
    """Returns a function whose rotation is due and needs the slot of an orphaned key, and the version with that key."""
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    world.age_credentials(target)
    interrupt_after_set(world, function, scheduled_run())
    return function, give_up_rotation(world, target)


def give_up_rotation(world: World, target: dict) -> str:
    """Does what an operator does to abandon a stuck rotation, and returns its version."""
    version = world.stages(target)["AWSPENDING"]
    world.move_stage(target, "AWSPENDING", RemoveFromVersionId=version)
    return version


def put_pending_key(world: World, target: dict, created_at: str) -> str:
    """Stages a key of a rotation that began at that time and was interrupted, and returns the key's ID."""
    key = world.client("iam").create_access_key(UserName=target["user_name"])["AccessKey"]
    value = {"kind": "access_key", "credential_id": key["AccessKeyId"], "minted_at": created_at}
    value |= {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
    world.client("secretsmanager").put_secret_value(
        SecretId=target["secret_id"], SecretString=json.dumps(value), VersionStages=["AWSPENDING"]
    )
    return key["AccessKeyId"]
