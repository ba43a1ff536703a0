"""An object in a versioned bucket of the local S3 that holds a list of targets."""

import json
import uuid

from .local_cloud import LocalCloud
from .upstream import is_from_root
from .world import World


class TargetsObject:
    key = "fleet/targets (EU).json"

    def __init__(self, stack: LocalCloud | World, key: str | None = None):
        self.key = key or self.key
        self.bucket = f"targets-{uuid.uuid4().hex[:12]}"
        self._aws, self._s3 = stack.aws, stack.client("s3")
        self._s3.create_bucket(Bucket=self.bucket)
        self._s3.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def variables(self) -> dict[str, str]:
        """The variables of a function that reads its targets from the object."""
        return {"TARGETS": "", "TARGETS_S3_URI": self.uri}

    def put(self, targets: list[dict] | bytes):
        body = targets if isinstance(targets, bytes) else json.dumps(targets).encode()
        self._s3.put_object(Bucket=self.bucket, Key=self.key, Body=body)

    def delete(self):
        self._s3.delete_object(Bucket=self.bucket, Key=self.key)

    def reads(self) -> list[int]:
        """The statuses of the function's requests to S3, in their order."""
        requests = [request for request in self._aws.requests if not is_from_root(request)]
        return [request.status for request in requests if request.call.startswith("s3 GET")]
