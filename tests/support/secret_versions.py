"""Reads and moves the versions of ministack's secrets as root."""

from .aws_replies import AwsRefusal
from .upstream import Upstream


class SecretVersions:
    def __init__(self, upstream: Upstream):
        self._upstream = upstream

    def describe(self, secret_id: str, region: str) -> dict:
        return self._call("DescribeSecret", secret_id, region)

    def read(self, secret_id: str, region: str, **version: str) -> dict:
        return self._call("GetSecretValue", secret_id, region, **version)

    def find(self, secret_id: str, region: str, version: str) -> dict | None:
        """The version, which may have no value; None if there is no such version."""
        try:
            return self.read(secret_id, region, VersionId=version)
        except AwsRefusal:
            return None

    def holder(self, stage: str, secret_id: str, region: str) -> str | None:
        return self.stages(secret_id, region).get(stage)

    def stages(self, secret_id: str, region: str) -> dict[str, str]:
        """The version that each stage is on."""
        versions = self.describe(secret_id, region)["VersionIdsToStages"]
        return {stage: version for version, stages in versions.items() for stage in stages}

    def add_empty(self, version: str, secret_id: str, region: str):
        """Creates a version with the stage AWSPENDING and no value."""
        self.free("AWSPENDING", secret_id, region)
        pending = {"ClientRequestToken": version, "VersionStages": ["AWSPENDING"]}
        self._call("PutSecretValue", secret_id, region, **pending)

    def free(self, stage: str, secret_id: str, region: str):
        """Removes the stage from the version that has it, if one does."""
        if holder := self.holder(stage, secret_id, region):
            self.take(stage, holder, secret_id, region)

    def take(self, stage: str, version: str, secret_id: str, region: str):
        removed = {"VersionStage": stage, "RemoveFromVersionId": version}
        self._call("UpdateSecretVersionStage", secret_id, region, **removed)

    def attach(self, stage: str, version: str, secret_id: str, region: str):
        self._call("UpdateSecretVersionStage", secret_id, region, VersionStage=stage, MoveToVersionId=version)

    def _call(self, action: str, secret_id: str, region: str, **parameters) -> dict:
        return self._upstream.root_json("secretsmanager", action, region, SecretId=secret_id, **parameters)
