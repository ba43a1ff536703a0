"""A local cloud that is set up for the events in events/."""

import json
import tempfile
from pathlib import Path

from .container import HOST
from .local_cloud import REGION, LocalCloud
from .local_rotation import ROTATION_STEPS
from .tls import private_ca


class ExampleCloud:
    """Two targets: `default` with temporary credentials, and `prod` with a staged secret and access keys."""

    def __init__(self, ministack_executable):
        self._directory = tempfile.TemporaryDirectory(prefix="example-")
        # The servers use TLS because the function sends credentials without it only to its own loopback.
        tls, self._ca_bundle = private_ca(Path(self._directory.name), "127.0.0.1", HOST)
        self.cloud = LocalCloud(ministack_executable, tls, self._ca_bundle)

    def __enter__(self):
        self.cloud.__enter__()
        self.ai_secrets = {name: self._ai_secret(name) for name in ("default", "prod")}
        self.secret = self.cloud.client("secretsmanager").create_secret(Name="braintrust-bedrock")["ARN"]
        temporary = {"name": "default", "kind": "temporary", "role_arn": self.cloud.new_role()}
        access_key = {"name": "prod", "kind": "access_key", "user_name": self._user(), "secret_id": self.secret}
        targets = [
            {**target, "region": REGION, "ai_secrets": [{"id": self.ai_secrets[target["name"]]}]}
            for target in (temporary, access_key)
        ]
        pem = self._ca_bundle.read_text()
        self.environment = self.cloud.environment(targets, AWS_CA_BUNDLE=pem, BRAINTRUST_CA_BUNDLE=pem)
        return self

    def __exit__(self, *_):
        self.cloud.__exit__()
        self._directory.cleanup()

    @property
    def ports(self) -> list[int]:
        return [self.cloud.aws.port, self.cloud.braintrust.port]

    def prepare(self, event: dict, invoke) -> dict:
        """Does with `invoke` what must precede the event, and returns the event with this cloud's own secret."""
        if event.get("action") in ("rollback", "revoke"):
            for _ in range(2 if event["action"] == "rollback" else 1):
                invoke({"action": "rotate", "targets": event["targets"], "force": True})
        if "Step" not in event or event["Step"] not in ROTATION_STEPS:
            return event
        event = {**event, "SecretId": self.secret}
        self.cloud.aws.begin_rotation(self.secret, event["ClientRequestToken"])
        for name in ROTATION_STEPS[: ROTATION_STEPS.index(event["Step"])]:
            invoke({**event, "Step": name})
        return event

    def works(self, name: str) -> bool:
        """Whether Bedrock accepts the target's credentials in Braintrust."""
        found = self.cloud.braintrust.credentials(self.ai_secrets[name])
        return self.cloud.aws.works(found["access_key"], found["secret"], found["session_token"], found["region"])

    def _ai_secret(self, name: str) -> str:
        return self.cloud.braintrust.add_ai_secret(f"AWS Bedrock {name}", metadata={"region": REGION})

    def _user(self) -> str:
        iam, name = self.cloud.client("iam"), "braintrust-bedrock"
        iam.create_user(UserName=name)
        statement = {"Effect": "Allow", "Action": "bedrock:ListFoundationModels", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_user_policy(UserName=name, PolicyName="bedrock", PolicyDocument=policy)
        return name
