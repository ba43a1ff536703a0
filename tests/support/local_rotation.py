"""RotateSecret of Secrets Manager: it calls the steps of the rotation function in the background."""

import json
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from .aws_replies import AwsRefusal, json_error, json_result
from .http_messages import RecordedRequest, Reply
from .secret_versions import SecretVersions
from .upstream import Upstream

ROTATION_STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")
_PRINCIPAL = "secretsmanager.amazonaws.com"


@dataclass(frozen=True)
class CalledStep:
    """One call of the rotation function, and its result."""

    name: str
    token: str
    ok: bool
    body: Any


@dataclass(frozen=True)
class StepOutcome:
    ok: bool
    body: Any


@dataclass
class _Rotation:
    enabled: bool = True
    function: str | None = None
    rules: dict | None = None
    steps: list[CalledStep] = field(default_factory=list)
    thread: threading.Thread | None = None


class LocalRotations:
    """`invoke` takes the event of a step and returns an object with `ok` and `body`."""

    def __init__(self, upstream: Upstream, versions: SecretVersions, lock: threading.RLock):
        self.invoke: Callable[[dict], Any] | None = None
        self.retries = 1
        self._upstream = upstream
        self._versions = versions
        self._lock = lock
        self._rotations: dict[str, _Rotation] = {}

    def rotate(self, request: RecordedRequest, asked: dict, region: str) -> Reply:
        secret = self._versions.describe(asked["SecretId"], region)
        arn = secret["ARN"]
        known = self._rotations.get(arn, _Rotation())
        function = asked.get("RotationLambdaARN") or known.function
        self._require_function(function, arn, region)
        token = asked.get("ClientRequestToken") or str(uuid.uuid4())
        rotation = self._turn_on(arn, function, asked.get("RotationRules") or known.rules)
        pending = _unfinished(secret)
        running = rotation.thread is not None and rotation.thread.is_alive()
        if not running:
            rotation.steps.clear()
        if pending not in (None, token):
            if not running:
                self._start(rotation, arn, pending, region, ROTATION_STEPS)
            message = "A previous rotation isn't complete. That rotation will be reattempted."
            return json_error(400, "InvalidRequestException", message)
        is_new = token not in secret["VersionIdsToStages"]
        if is_new:
            self._versions.add_empty(token, arn, region)
        if (is_new or pending) and not running:
            steps = ROTATION_STEPS if asked.get("RotateImmediately", True) else ("testSecret",)
            self._start(rotation, arn, token, region, steps)
        return json_result({"ARN": arn, "Name": secret["Name"], "VersionId": token})

    def begin(self, secret_id: str, token: str, region: str):
        """Turns rotation on and creates the pending version, without calling the function."""
        with self._lock:
            secret = self._versions.describe(secret_id, region)
            known = self._rotations.get(secret["ARN"], _Rotation())
            self._turn_on(secret["ARN"], known.function, known.rules)
            if token not in secret["VersionIdsToStages"]:
                self._versions.add_empty(token, secret["ARN"], region)

    def cancel(self, request: RecordedRequest, asked: dict, region: str) -> Reply:
        """Turns rotation off. AWSPENDING stays where it is."""
        secret = self._versions.describe(asked["SecretId"], region)
        rotation = self._rotations.setdefault(secret["ARN"], _Rotation())
        rotation.enabled = False
        answer = {"ARN": secret["ARN"], "Name": secret["Name"], "VersionId": _unfinished(secret)}
        return json_result({name: value for name, value in answer.items() if value})

    def shown(self, arn: str) -> dict:
        """The fields of DescribeSecret about rotation: none if it was never configured."""
        rotation = self._rotations.get(arn)
        if rotation is None:
            return {}
        shown = {"RotationLambdaARN": rotation.function, "RotationRules": rotation.rules}
        return {"RotationEnabled": rotation.enabled} | {name: value for name, value in shown.items() if value}

    def wait(self, secret_id: str, timeout: float) -> list[CalledStep]:
        [rotation] = [
            rotation
            for arn, rotation in self._rotations.items()
            if secret_id in (arn, arn.rpartition(":")[2].rpartition("-")[0])
        ]
        if rotation.thread:
            rotation.thread.join(timeout)
            if rotation.thread.is_alive():
                raise TimeoutError(f"the rotation of {secret_id} still runs, after {rotation.steps}")
        return list(rotation.steps)

    def _turn_on(self, arn: str, function: str | None, rules: dict | None) -> _Rotation:
        rotation = self._rotations.setdefault(arn, _Rotation())
        rotation.enabled, rotation.function, rotation.rules = True, function, rules
        return rotation

    def _start(self, rotation: _Rotation, arn: str, token: str, region: str, steps: tuple[str, ...]):
        work = (rotation, arn, token, region, steps)
        rotation.thread = threading.Thread(target=self._work, args=work, daemon=True)
        rotation.thread.start()

    def _work(self, rotation: _Rotation, arn: str, token: str, region: str, steps: tuple[str, ...]):
        is_test = steps != ROTATION_STEPS
        for _ in range(1 if is_test else 1 + self.retries):
            if all(self._step(rotation, name, arn, token, region) for name in steps):
                break
        if is_test:
            with self._lock:
                if _unfinished(self._versions.describe(arn, region)) == token:
                    self._versions.take("AWSPENDING", token, arn, region)

    def _step(self, rotation: _Rotation, name: str, arn: str, token: str, region: str) -> bool:
        event = {"Step": name, "SecretId": arn, "ClientRequestToken": token, "RotationToken": str(uuid.uuid4())}
        try:
            outcome = self.invoke(event) if self.invoke else self._invoke_deployed(rotation.function, event, region)
        except Exception as error:
            outcome = StepOutcome(False, str(error))
        rotation.steps.append(CalledStep(name, token, outcome.ok, outcome.body))
        return outcome.ok

    def _invoke_deployed(self, function: str, event: dict, region: str) -> StepOutcome:
        target = f"/2015-03-31/functions/{quote(function)}/invocations"
        answer = self._upstream.as_root("lambda", region, target=target, body=json.dumps(event).encode())
        return StepOutcome("x-amz-function-error" not in answer.headers, json.loads(answer.body or b"null"))

    def _require_function(self, function: str | None, arn: str, region: str):
        if self.invoke is not None:
            return
        if function is None:
            message = "No Lambda rotation function ARN is associated with this secret."
            raise AwsRefusal(json_error(400, "InvalidRequestException", message))
        try:
            target = f"/2015-03-31/functions/{quote(function)}/policy"
            policy = json.loads(self._upstream.as_root("lambda", region, "GET", target).body)["Policy"]
        except AwsRefusal:
            policy = '{"Statement": []}'
        if not any(_allows_secrets_manager(statement, arn) for statement in json.loads(policy)["Statement"]):
            message = (
                "Secrets Manager cannot invoke the specified Lambda function. Ensure that the function policy grants "
                f"access to the principal {_PRINCIPAL}."
            )
            raise AwsRefusal(json_error(400, "AccessDeniedException", message))


def _unfinished(secret: dict) -> str | None:
    """The version of an unfinished rotation. AWSPENDING may stay on a version that became current."""
    for version, stages in secret["VersionIdsToStages"].items():
        if "AWSPENDING" in stages and "AWSCURRENT" not in stages:
            return version
    return None


def _allows_secrets_manager(statement: dict, secret_arn: str) -> bool:
    """Whether a statement that `lambda:AddPermission` wrote allows Secrets Manager to invoke the function."""
    conditions = {
        key.lower(): value for operator in statement.get("Condition", {}).values() for key, value in operator.items()
    }
    return (
        statement["Effect"] == "Allow"
        and statement["Principal"] in ("*", {"Service": _PRINCIPAL})
        and statement["Action"] in ("lambda:InvokeFunction", "lambda:*")
        and conditions.get("aws:sourcearn", secret_arn) == secret_arn
        and conditions.get("aws:sourceaccount", secret_arn.split(":")[4]) == secret_arn.split(":")[4]
    )
