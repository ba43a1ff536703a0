"""A local stack in which each file of events/ does what it does in a real one."""

import json
import tempfile
from pathlib import Path

from .container import HOST
from .secret_rotation import STEPS
from .stack import REGION, Stack
from .tls import private_ca


class Example:
    """Two targets: `default` with temporary credentials, and `prod` with a staged secret and an IAM user's access keys."""

    def __init__(self, ministack_executable):
        self._directory = tempfile.TemporaryDirectory(prefix="example-")
        # Over TLS, because the function shows an API key to no server without, except on its own loopback.
        tls, self._ca_bundle = private_ca(Path(self._directory.name), "127.0.0.1", HOST)
        self.stack = Stack(ministack_executable, tls)

    def __enter__(self):
        self.stack.__enter__()
        self.ai_secrets = {name: self._ai_secret(name) for name in ("default", "prod")}
        self.secret = self.stack.client("secretsmanager").create_secret(Name="braintrust-bedrock")["ARN"]
        temporary = {"name": "default", "kind": "temporary", "role_arn": self.stack.role()}
        standing = {"name": "prod", "kind": "access_key", "user_name": self._user(), "secret_id": self.secret}
        targets = [
            {**target, "region": REGION, "ai_secrets": [{"id": self.ai_secrets[target["name"]]}]}
            for target in (temporary, standing)
        ]
        self.environment = self.stack.environment(targets, BRAINTRUST_CA_BUNDLE=self._ca_bundle.read_text())
        return self

    def __exit__(self, *_):
        self.stack.__exit__()
        self._directory.cleanup()

    @property
    def ports(self) -> list[int]:
        return [self.stack.aws.port, self.stack.braintrust.port]

    def prepare(self, event: dict, invoke) -> dict:
        """Has happen what comes before the event, by `invoke`; answers the event with this stack's own secret."""
        if event.get("action") == "rollback" and "targets" in event:
            for _ in range(2):
                invoke({"action": "rotate", "targets": event["targets"], "force": True})
        if "Step" not in event or event["Step"] not in STEPS:
            return event
        event = {**event, "SecretId": self.secret}
        self.stack.aws.begin_rotation(self.secret, event["ClientRequestToken"])
        for name in STEPS[: STEPS.index(event["Step"])]:
            invoke({**event, "Step": name})
        return event

    def works(self, name: str) -> bool:
        """Whether Bedrock takes what Braintrust holds for the target."""
        held = self.stack.braintrust.credentials(self.ai_secrets[name])
        return self.stack.aws.works(held["access_key"], held["secret"], held["session_token"], held["region"])

    def _ai_secret(self, name: str) -> str:
        return self.stack.braintrust.add_ai_secret(f"AWS Bedrock {name}", metadata={"region": REGION})

    def _user(self) -> str:
        iam, name = self.stack.client("iam"), "braintrust-bedrock"
        iam.create_user(UserName=name)
        statement = {"Effect": "Allow", "Action": "bedrock:ListFoundationModels", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_user_policy(UserName=name, PolicyName="bedrock", PolicyDocument=policy)
        return name
