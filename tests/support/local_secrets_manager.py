"""What ministack's Secrets Manager lacks: versions without a value, values that can't change, the first version's
stage, the limit of versions, and rotation."""

import json
import re
import threading
import time
from collections import Counter, defaultdict
from datetime import datetime, timedelta

from .aws_replies import AwsRefusal, json_error, json_result
from .http_messages import RecordedRequest, Reply
from .kinds import USER_BASED
from .local_iam import iso8601
from .local_rotation import LocalRotations
from .secret_versions import SecretVersions
from .upstream import Upstream, signer

MAX_VERSIONS = 100


_REGION = "us-east-1"
_TIMED_LABEL = re.compile(r"([A-Z]+)_(\d+)_(.+)")


class LocalSecretsManager:
    """`max_versions` limits the values that a secret takes, because all of its versions are younger than a day."""

    def __init__(self, upstream: Upstream):
        self.max_versions = MAX_VERSIONS
        self._upstream = upstream
        self._versions = SecretVersions(upstream)
        self._lock = threading.RLock()
        self._tidied: set[str] = set()
        self._values_put: Counter[str] = Counter()
        self._passed: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self.rotation = LocalRotations(upstream, self._versions, self._lock)

    def answer(self, request: RecordedRequest) -> Reply | None:
        """The reply to the calls that are added here; None for those that ministack implements."""
        action = request.call.removeprefix("secretsmanager:")
        reads = {"CreateSecret": self._create, "DescribeSecret": self._describe, "GetSecretValue": self._get}
        writes = {
            "PutSecretValue": self._put,
            "UpdateSecretVersionStage": self._move_stage,
            "RotateSecret": self.rotation.rotate,
            "CancelRotateSecret": self.rotation.cancel,
        }
        if action not in reads | writes:
            return None
        try:
            asked, region = request.json(), signer(request)[1]
            self._tidy(asked.get("SecretId"), region)
            if action in reads:
                return reads[action](request, asked, region)
            # These read and write as root before ministack sees the caller's own request, if it sees it at all.
            if refusal := self._upstream.refusal(request):
                return refusal
            with self._lock:
                return writes[action](request, asked, region)
        except AwsRefusal as refused:
            return refused.answer

    def let_time_pass(self, secret_id: str, seconds: float):
        """Makes everything that has happened to the secret that much older, the function's labels included."""
        with self._lock:
            for label, version in self._versions.stages(secret_id, _REGION).items():
                if timed := _TIMED_LABEL.fullmatch(label):
                    older = f"{timed[1]}_{int(timed[2]) - int(seconds) * 1_000_000}_{timed[3]}"
                    self._versions.take(label, version, secret_id, _REGION)
                    self._versions.attach(older, version, secret_id, _REGION)
        self._passed[secret_id].append((time.time(), seconds))

    def current_value(self, secret_id: str, region: str) -> dict:
        """The current version, or an empty object if there is none. Not recorded, and not affected by faults."""
        with self._lock:
            try:
                return self._versions.read(secret_id, region)
            except AwsRefusal:
                return {}

    def _create(self, request: RecordedRequest, asked: dict, region: str) -> Reply:
        answer = self._upstream.forward(request)
        if answer.status == 200 and not _value(asked):
            created = json.loads(answer.body)
            self._tidy(created["ARN"], region)
            return json_result({name: value for name, value in created.items() if name != "VersionId"})
        return answer

    def _tidy(self, secret_id: str | None, region: str):
        """Removes AWSCURRENT, which ministack gives even to a secret that was created without a value."""
        if secret_id is None or (secret_id, region) in self._tidied:
            return
        try:
            current = self._versions.holder("AWSCURRENT", secret_id, region)
        except AwsRefusal:
            return  # there is no such secret, which ministack will say
        if current and not _value(self._versions.read(secret_id, region, VersionId=current)):
            self._versions.take("AWSCURRENT", current, secret_id, region)
        self._tidied.add((secret_id, region))

    def _describe(self, request: RecordedRequest, asked: dict, region: str) -> Reply:
        answer = self._upstream.forward(request)
        if answer.status != 200:
            return answer
        described = json.loads(answer.body)
        # Secrets Manager omits these fields as long as they are empty.
        del described["RotationEnabled"]
        if not described["VersionIdsToStages"]:
            del described["VersionIdsToStages"]
        for at, seconds in self._passed[described["ARN"]]:
            for date in ("CreatedDate", "LastChangedDate"):
                described[date] -= seconds if described[date] <= at else 0
        return json_result(described | self.rotation.shown(described["ARN"]))

    def _get(self, request: RecordedRequest, asked: dict, region: str) -> Reply:
        answer = self._upstream.forward(request)
        if answer.status != 200:
            return answer
        version = json.loads(answer.body)
        if _value(version):
            return json_result(self._older(version)) if self._passed[version["ARN"]] else answer
        sought = f"VersionId: {asked['VersionId']}" if "VersionId" in asked else None
        sought = sought or f"staging label: {asked.get('VersionStage', 'AWSCURRENT')}"
        message = f"Secrets Manager can't find the specified secret value for {sought}"
        return json_error(400, "ResourceNotFoundException", message)

    def _older(self, version: dict) -> dict:
        """The version with older credentials of an IAM user, whose key has become older."""
        try:
            value = json.loads(version["SecretString"])
        except (KeyError, ValueError):
            return version
        if not isinstance(value, dict) or value.get("kind") not in USER_BASED:
            return version
        passed = sum(seconds for at, seconds in self._passed[version["ARN"]] if version["CreatedDate"] <= at)
        created_at = datetime.fromisoformat(value["minted_at"]) - timedelta(seconds=passed)
        return version | {"SecretString": json.dumps(value | {"minted_at": iso8601(created_at)})}

    def _put(self, request: RecordedRequest, asked: dict, region: str) -> Reply:
        secret_id, token = asked["SecretId"], asked.get("ClientRequestToken")
        if not _value(asked):
            message = "You must provide either SecretString or SecretBinary."
            return json_error(400, "InvalidRequestException", message)
        version = self._versions.find(secret_id, region, token) if token else None
        if version and _value(version) == _value(asked):
            return json_result({name: version[name] for name in ("ARN", "Name", "VersionId", "VersionStages")})
        if version and _value(version):
            in_use = f"that value is already in use for a version of secret {version['ARN']}"
            message = f"You can't use ClientRequestToken {token} because {in_use}."
            return json_error(400, "ResourceExistsException", message)
        held = self._versions.stages(secret_id, region)
        if self._values_put[secret_id] >= self.max_versions:
            message = f"You can't have more than {self.max_versions} versions that are younger than 24 hours."
            return json_error(400, "LimitExceededException", message)
        stages = asked.get("VersionStages") or ["AWSCURRENT"]
        for stage in stages:
            # ministack itself moves AWSCURRENT, and AWSPREVIOUS with it.
            if stage != "AWSCURRENT" and stage in held:
                self._versions.take(stage, held[stage], secret_id, region)
        answer = self._upstream.forward(request)
        if answer.status != 200:
            return answer
        self._values_put[secret_id] += 1
        if "AWSCURRENT" not in held:
            # "If this operation creates the first version for the secret, then Secrets Manager automatically attaches
            # the staging label AWSCURRENT to it", whatever stages were asked for.
            stages = [*stages, "AWSCURRENT"]
        return self._with_stages(json.loads(answer.body), stages, region)

    def _with_stages(self, put: dict, stages: list[str], region: str) -> Reply:
        """Attaches the stages that ministack has left out, because it attaches no other stage beside AWSCURRENT."""
        for stage in stages:
            if stage not in put["VersionStages"]:
                self._versions.attach(stage, put["VersionId"], put["ARN"], region)
        return json_result(put | {"VersionStages": list(dict.fromkeys(stages))})

    def _move_stage(self, request: RecordedRequest, asked: dict, region: str) -> Reply:
        if asked.get("VersionStage") == "AWSCURRENT" and not asked.get("MoveToVersionId"):
            message = "You can only move staging label AWSCURRENT to a different secret version."
            return json_error(400, "InvalidParameterException", message)
        # "If the label is attached and you either do not specify this parameter, or the version ID does not match, then
        # the operation fails."
        holder = self._versions.holder(asked["VersionStage"], asked["SecretId"], region)
        if holder != asked.get("RemoveFromVersionId"):
            message = f"The parameter RemoveFromVersionId can't be used: the staging label is on {holder}."
            return json_error(400, "InvalidParameterException", message)
        return self._upstream.forward(request)


def _value(version: dict) -> tuple | None:
    """None if there is no value, for which ministack's CloudFormation writes an empty string."""
    value = version.get("SecretString"), version.get("SecretBinary")
    return value if any(value) else None
