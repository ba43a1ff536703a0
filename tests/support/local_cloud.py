"""The local AWS and the local Braintrust, started together, and the roles and secrets in them."""

import json
import uuid
from pathlib import Path

import boto3
from botocore.config import Config

from .aws_models import AwsModels
from .local_aws import LocalAws
from .local_braintrust import LocalBraintrust
from .ministack import Ministack
from .ports import free_port

REGION = "us-east-1"
_EXECUTION_ROLE = "rotator-execution"
# As many as the threads of tests that use a client at once.
_CONNECTIONS = 50


class LocalCloud:
    def __init__(self, ministack_executable: str, tls: tuple[str, str] | None = None, ca_bundle: Path | None = None):
        self.ministack = Ministack(ministack_executable, free_port())
        self.aws = LocalAws(self.ministack.port, tls)
        self._ca_bundle = ca_bundle
        self.braintrust = LocalBraintrust(tls, None if tls else self.aws.url)
        self.braintrust_api_key = "sk-local"
        self.caller: dict[str, str] = {}
        self._clients: dict[str, object] = {}

    def __enter__(self):
        try:
            self.aws.start()
            self.braintrust.start()
            self.ministack.start(endpoint_url=self.aws.url)
            self._prepare()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.ministack.stop()
        self.aws.stop()
        self.braintrust.stop()

    def client(self, service: str):
        """A boto3 client as the account's root."""
        if service not in self._clients:
            self._clients[service] = boto3.session.Session(
                self.ministack.root["AWS_ACCESS_KEY_ID"],
                self.ministack.root["AWS_SECRET_ACCESS_KEY"],
                region_name=REGION,
            ).client(
                service,
                endpoint_url=self.aws.url,
                config=Config(max_pool_connections=_CONNECTIONS),
                verify=self._ca_bundle and str(self._ca_bundle),
            )
        return self._clients[service]

    def new_role(
        self,
        name: str | None = None,
        trust: str | dict | None = None,
        external_id: str | None = None,
        allow: list[str] | tuple[str, ...] = ("bedrock:ListFoundationModels",),
        max_session: int = 3600,
    ) -> str:
        """Creates a role and returns its ARN. `trust` is a principal's ARN (by default the caller's) or a policy."""
        name = name or f"role-{uuid.uuid4().hex[:12]}"
        if not isinstance(trust, dict):
            statement = {
                "Effect": "Allow",
                "Principal": {"AWS": trust or self._execution_role},
                "Action": "sts:AssumeRole",
            }
            if external_id is not None:
                statement["Condition"] = {"StringEquals": {"sts:ExternalId": external_id}}
            trust = _policy(statement)
        iam = self.client("iam")
        arn = iam.create_role(
            RoleName=name,
            AssumeRolePolicyDocument=json.dumps(trust),
            MaxSessionDuration=max_session,
        )["Role"]["Arn"]
        if allow:
            policy = _policy({"Effect": "Allow", "Action": list(allow), "Resource": "*"})
            iam.put_role_policy(RoleName=name, PolicyName="allow", PolicyDocument=json.dumps(policy))
        return arn

    def new_secret(self, value: str | dict, name: str | None = None) -> str:
        text = value if isinstance(value, str) else json.dumps(value)
        name = name or f"secret-{uuid.uuid4().hex[:12]}"
        return self.client("secretsmanager").create_secret(Name=name, SecretString=text)["ARN"]

    def environment(self, targets: list[dict], **extra: str) -> dict[str, str]:
        return {
            "TARGETS": json.dumps(targets),
            "BRAINTRUST_API_KEY_SECRET_ID": self._braintrust_api_key_secret,
            "BRAINTRUST_API_URL": self.braintrust.url,
            "AWS_ENDPOINT_URL": self.aws.url,
            "AWS_REGION": REGION,
            **self.caller,
            **extra,
        }

    def _prepare(self):
        self.braintrust.add_key(self.braintrust_api_key)
        self._braintrust_api_key_secret = self.new_secret(self.braintrust_api_key, "braintrust-api-key")
        # Lambda gives a function the credentials of a role's session.
        self._execution_role = self.new_role(
            _EXECUTION_ROLE,
            trust="arn:aws:iam::000000000000:root",
            allow=(
                "sts:AssumeRole",
                "iam:*AccessKey*",
                "iam:*ServiceSpecificCredential*",
                "s3:GetObject",
                "secretsmanager:DescribeSecret",
                "secretsmanager:GetSecretValue",
                "secretsmanager:PutSecretValue",
                "secretsmanager:UpdateSecretVersionStage",
            ),
            max_session=43200,
        )
        session = self.client("sts").assume_role(
            RoleArn=self._execution_role, RoleSessionName="function", DurationSeconds=43200
        )["Credentials"]
        self.caller = {
            "AWS_ACCESS_KEY_ID": session["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": session["SecretAccessKey"],
            "AWS_SESSION_TOKEN": session["SessionToken"],
        }
        self.aws.requests.clear()
        self.aws.models = AwsModels(lambda service: self.client(service).meta.service_model)


def _policy(statement: dict) -> dict:
    return {"Version": "2012-10-17", "Statement": [statement]}
