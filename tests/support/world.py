"""One test's world: a Braintrust of its own, the local AWS that tests share, and the functions that the test starts."""

import datetime
import json
import time
import uuid
from contextlib import contextmanager

from .kinds import USER_BASED
from .lambda_function import LambdaFunction
from .local_aws import SHOWN_OLDER_BY, LocalAws
from .local_braintrust import LocalBraintrust
from .local_cloud import REGION, LocalCloud
from .local_secrets_manager import MAX_VERSIONS
from .paths import BOOTSTRAP
from .readers import READERS, ROUTES, Unreadable
from .upstream import is_from_root

OLD_METADATA = {
    "auth_type": "iam_credentials",
    "access_key": "ASIAOLD",
    "session_token": "old-token",
    "region": "us-east-1",
}
# The function counts a key that IAM's lists leave out as deleted if it is older than five minutes.
LISTED_BY_NOW = datetime.timedelta(minutes=6)
# A label that a run left behind counts for 15 minutes.
LONGER_THAN_ANY_RUN = datetime.timedelta(minutes=16)
_BEDROCK_ACTIONS = ["bedrock:ListFoundationModels", "bedrock:CallWithBearerToken"]


class World:
    def __init__(self, cloud: LocalCloud, role: str):
        self.aws = cloud.aws
        self.cloud = cloud
        self.client = cloud.client
        self.role = role
        self.functions = []
        self.servers = []
        self.braintrust = self.new_braintrust()
        self.api_key = f"sk-{uuid.uuid4()}"
        self.braintrust.add_key(self.api_key)
        self.api_key_secret = cloud.new_secret(self.api_key)

    def stop(self):
        for thing in [*self.functions, *self.servers]:
            thing.stop()
        self.aws.clear_faults()
        self.aws.latency = 0
        self.aws.new_credentials_unknown_for = 0
        self.aws.secrets_manager.max_versions = MAX_VERSIONS
        self.aws.new_keys_unlisted_for = 0
        self.aws.shown_older_by = SHOWN_OLDER_BY

    def violations(self) -> list[str]:
        """How the function's requests violate AWS's models and Braintrust's specification; without repetitions."""
        braintrusts = [server for server in self.servers if isinstance(server, LocalBraintrust)]
        found = [violation for server in (self.aws, *braintrusts) for violation in server.violations]
        return list(dict.fromkeys(found))

    def new_aws(self, tls) -> LocalAws:
        """Another server in front of the same AWS."""
        server = LocalAws(self.cloud.ministack.port, tls)
        self.servers.append(server.start())
        return server

    # Braintrust

    def new_braintrust(self, tls=None) -> LocalBraintrust:
        server = LocalBraintrust(tls)
        server.start()
        self.servers.append(server)
        return server

    def new_ai_secret(self, name="AWS Bedrock", metadata=None, **options) -> str:
        metadata = dict(OLD_METADATA) if metadata is None else metadata
        return self.braintrust.add_ai_secret(name, metadata=metadata, secret="old-secret", **options)

    def ai_secrets_made_by_hand(self, number: int) -> list[str]:
        """The IDs of new ai_secrets, which all hold one working access key that a person created."""
        key = self.client("iam").create_access_key(UserName=self.new_user())["AccessKey"]
        metadata = {"auth_type": "iam_credentials", "access_key": key["AccessKeyId"], "region": REGION}
        names = [uuid.uuid4().hex for _ in range(number)]
        secret = key["SecretAccessKey"]
        return [self.braintrust.add_ai_secret(name, metadata=metadata, secret=secret) for name in names]

    def patches(self):
        return [request for request in self.braintrust.requests if request.method == "PATCH"]

    def has_working_credentials(self, ai_secret, server=None) -> bool:
        """Whether today's proxy, reading this ai_secret, could call Bedrock."""
        return self.can_call_bedrock(ai_secret, "todays_proxy", ROUTES[0], server)

    def can_call_bedrock(self, ai_secret, reader, route, server=None) -> bool:
        try:
            return self.works(READERS[reader]((server or self.braintrust).snapshot()[ai_secret], route))
        except Unreadable:
            return False

    def works(self, credentials) -> bool:
        """Whether Bedrock accepts these credentials."""
        if credentials["auth_type"] == "api_key":
            return self.aws.key_works(credentials["secret"], credentials["region"])
        names = ("access_key", "secret", "session_token", "region")
        return self.aws.works(*(credentials[name] for name in names))

    # Targets and functions

    def target(self, *ai_secrets, name="prod", **fields) -> dict:
        """A target with temporary credentials, unless `fields` say otherwise; a field that is None is left out."""
        ai_secrets = [{"id": a} if isinstance(a, str) else a for a in ai_secrets]
        target = {
            "name": name,
            "kind": "temporary",
            "role_arn": self.role,
            "region": REGION,
            "ai_secrets": ai_secrets,
            **fields,
        }
        return {field: value for field, value in target.items() if value is not None}

    def new_staged_target(self, kind, ai_secret, **fields) -> dict:
        """A target of any kind, with a staged secret."""
        fields = {"kind": kind, "secret_id": self.new_staged_secret(), **fields}
        if kind in USER_BASED:
            # Without overlap, one scheduled run deactivates the previous credentials and the next deletes them.
            fields = {"role_arn": None, "user_name": self.new_user(), "overlap": "0m", **fields}
        return self.target(ai_secret, **fields)

    def environment(self, *targets, **extra) -> dict[str, str]:
        return self.cloud.environment(
            list(targets),
            **{
                "BRAINTRUST_API_URL": self.braintrust.url,
                "BRAINTRUST_API_KEY_SECRET_ID": self.api_key_secret,
                **extra,
            },
        )

    def new_function(self, *targets, timeout=300, runs=LambdaFunction, **extra):
        function = runs(BOOTSTRAP, self.environment(*targets, **extra), timeout=timeout)
        self.functions.append(function)
        return function

    def rotate(self, *targets, event=None, **options) -> dict:
        """The report of one run of a new function, which must succeed."""
        result = self.new_function(*targets, **options).invoke({"action": "rotate"} if event is None else event)
        assert result.ok, result.body
        return result.body

    def fail_to_rotate(self, *targets, event=None, **options) -> dict | str:
        """The report of one run of a new function, which must fail; if there is none, the error's message."""
        result = self.new_function(*targets, **options).invoke({"action": "rotate"} if event is None else event)
        assert not result.ok, result.body
        return result.report_in_error()

    # Secrets Manager

    def new_staged_secret(self, value: str | None = None) -> str:
        """A secret that has no value yet, unless one is given."""
        value = {} if value is None else {"SecretString": value}
        return self.client("secretsmanager").create_secret(Name=f"staged-{uuid.uuid4().hex[:12]}", **value)["ARN"]

    def staged_value(self, target, stage="AWSCURRENT") -> dict:
        """What consumers of the staged secret read."""
        answer = self.client("secretsmanager").get_secret_value(SecretId=target["secret_id"], VersionStage=stage)
        return json.loads(answer["SecretString"])

    def stages(self, target) -> dict[str, str]:
        """The version that each stage is on, without the labels that only tell when something was done."""
        answer = self.client("secretsmanager").describe_secret(SecretId=target["secret_id"])
        found = [(stage, version) for version, stages in answer.get("VersionIdsToStages", {}).items() for stage in stages]
        return {stage: version for stage, version in found if not stage.startswith(("PROMOTED_", "RESTORED_"))}

    def put_value(self, target, value, stage="AWSCURRENT") -> str:
        """Puts a value into a new version with this stage. Returns the version."""
        answer = self.client("secretsmanager").put_secret_value(
            SecretId=target["secret_id"], SecretString=json.dumps(value), VersionStages=[stage]
        )
        return answer["VersionId"]

    def move_stage(self, target, stage, **move):
        self.client("secretsmanager").update_secret_version_stage(
            SecretId=target["secret_id"], VersionStage=stage, **move
        )

    def age_credentials(self, target, by=datetime.timedelta(days=40), stage="AWSCURRENT") -> str:
        """Makes the current or pending credentials older, in a new version. Returns the version."""
        value, previous = self.staged_value(target, stage), self.stages(target).get("AWSPREVIOUS")
        made_at = datetime.datetime.fromisoformat(value["minted_at"]) - by
        is_replaced = previous is not None and stage == "AWSCURRENT"
        if is_replaced:
            # ministack deletes versions without a stage.
            self.move_stage(target, "KEPT", MoveToVersionId=previous)
        version = self.put_value(target, value | {"minted_at": made_at.strftime("%Y-%m-%dT%H:%M:%SZ")}, stage)
        if is_replaced:
            # Secrets Manager has moved AWSPREVIOUS to the younger copy of the current credentials.
            replaced = self.stages(target)["AWSPREVIOUS"]
            self.move_stage(target, "AWSPREVIOUS", MoveToVersionId=previous, RemoveFromVersionId=replaced)
            self.move_stage(target, "KEPT", RemoveFromVersionId=previous)
        return version

    def let_time_pass(self, target, passed: datetime.timedelta):
        """Makes the target's keys, and everything that has happened to its secrets, older by this much."""
        self.aws.let_time_pass(passed, target.get("user_name"), target["secret_id"])
        for ai_secret in target["ai_secrets"]:
            self.braintrust.let_time_pass(ai_secret["id"], passed)
        # ministack's times are whole seconds, and what happens in this one would become older too.
        time.sleep(1 - time.time() % 1)

    # IAM

    def new_user(self) -> str:
        """An IAM user that may use Bedrock and has no credentials yet."""
        name = f"user-{uuid.uuid4().hex[:12]}"
        iam = self.client("iam")
        iam.create_user(UserName=name)
        statement = {"Effect": "Allow", "Action": _BEDROCK_ACTIONS, "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_user_policy(UserName=name, PolicyName="bedrock", PolicyDocument=policy)
        return name

    @contextmanager
    def execution_policy(self, allow=(), deny=()):
        """Gives the function's role these permissions, or takes them from it, inside the context."""
        iam, name = self.client("iam"), f"more-{uuid.uuid4().hex[:8]}"
        statements = [("Allow", allow), ("Deny", deny)]
        statements = [{"Effect": e, "Action": list(actions), "Resource": "*"} for e, actions in statements if actions]
        policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
        iam.put_role_policy(RoleName="rotator-execution", PolicyName=name, PolicyDocument=policy)
        try:
            yield
        finally:
            iam.delete_role_policy(RoleName="rotator-execution", PolicyName=name)

    def create_key_by_hand(self, kind, user):
        """Creates a key that the function doesn't know."""
        iam = self.client("iam")
        if kind == "access_key":
            iam.create_access_key(UserName=user)
        else:
            iam.create_service_specific_credential(UserName=user, ServiceName="bedrock.amazonaws.com")

    def end_key_by_hand(self, target, id, how):
        """Deletes or deactivates one of the IAM user's keys, as somebody else might."""
        iam, user = self.client("iam"), target["user_name"]
        if target["kind"] == "access_key":
            call, named = "access_key", {"AccessKeyId": id}
        else:
            call, named = "service_specific_credential", {"ServiceSpecificCredentialId": id}
        if how == "deleted":
            getattr(iam, f"delete_{call}")(UserName=user, **named)
        else:
            getattr(iam, f"update_{call}")(UserName=user, Status="Inactive", **named)

    def iam_keys(self, target) -> dict[str, bool]:
        """The IDs of the IAM user's keys, and whether each is active."""
        iam, user = self.client("iam"), target.get("user_name")
        if user is None:
            return {}
        if target["kind"] == "access_key":
            found = iam.list_access_keys(UserName=user)["AccessKeyMetadata"]
            return {key["AccessKeyId"]: key["Status"] == "Active" for key in found}
        found = iam.list_service_specific_credentials(UserName=user)["ServiceSpecificCredentials"]
        return {key["ServiceSpecificCredentialId"]: key["Status"] == "Active" for key in found}

    # What the function asked of AWS

    def aws_requests(self, call=None):
        """The function's requests; those that the test makes as root don't count."""
        requests = [request for request in self.aws.requests if not is_from_root(request)]
        return [request for request in requests if call in (None, request.call)]
