"""A rotation with a front of its own, so that many are disturbed side by side, and what must hold of it afterwards."""

import uuid

from support.server import Server
from test_crashes import STANDING, schedule
from test_secrets import forms
from test_steps import STEPS

FAILURES = {"RotationFailed", "EventRefused"}


class Front(Server):
    """AWS and Braintrust as one function sees them, so that several are disturbed side by side."""

    def __init__(self, bench):
        super().__init__()
        self._bench = bench

    def _behind(self, request):
        return self._bench.braintrust if request.path.startswith("/v1/") else self._bench.aws

    def call_name(self, request):
        return self._behind(request).call_name(request)

    def handle(self, request):
        return self._behind(request).handle(request)


class Rotation:
    """One target whose credentials are due, and what was found wrong with its rotation."""

    def __init__(self, bench, kind, trigger):
        self.bench, self.kind, self.trigger = bench, kind, trigger
        self.not_ours = set(bench.aws.minted_secrets)
        self.front = Front(bench).start()
        bench.servers.append(self.front)
        name = uuid.uuid4().hex
        self.ai_secret = bench.ai_secret(name)
        if trigger == "memory":
            self.target = bench.target(self.ai_secret, name=name)
        else:
            self.target = bench.staged_target(kind, self.ai_secret, name=name)
        self.event, self.token = schedule(), str(uuid.uuid4())
        self.shown, self.wrong = b"", []

    def begin(self, seconds, **variables):
        """Credentials that are old, an orphan in the last slot, and a cold function."""
        if self.trigger != "memory":
            self.bench.age(self.target)
        if self.kind in STANDING:
            self.bench.mint_by_hand(self.kind, self.target["user_name"])
        if self.trigger == "rotation":
            self.bench.aws.begin_rotation(self.target["secret_id"], self.token)
        self.start(seconds, **variables)

    def start(self, seconds, **variables):
        self.seconds, url = seconds, self.front.url
        shown = {"AWS_LAMBDA_LOG_LEVEL": "TRACE", "RUST_LOG": "trace", "RUST_BACKTRACE": "full"}
        variables = {"AWS_ENDPOINT_URL": url, "BRAINTRUST_API_URL": url, **shown, **variables}
        self.function = self.bench.function(self.target, timeout=seconds, **variables)

    def invoke(self, event):
        result = self.function.invoke(event)
        self.shown += result.raw
        if result.seconds > self.seconds:
            self.wrong.append(f"it took {result.seconds:.1f} s")
        if result.status != 200 or not (result.ok or result.body.get("errorType") in FAILURES):
            self.wrong.append(f"it ended with {result.status} {result.body}")
        return result.ok

    def run(self):
        """The rotation, or the same again; whether it ended well."""
        if self.trigger != "rotation":
            return self.invoke(self.event)
        step = {"SecretId": self.target["secret_id"], "ClientRequestToken": self.token}
        return all(self.invoke({"Step": name, **step}) for name in STEPS)

    def again(self):
        """The same again; an abandoned rotation has no pending version left, and Secrets Manager begins another."""
        if self.trigger == "rotation" and "AWSPENDING" not in self.bench.stages(self.target):
            self.token = str(uuid.uuid4())
            self.bench.aws.begin_rotation(self.target["secret_id"], self.token)
        return self.run()

    def check(self, when):
        """Whoever reads Braintrust or the staged secret can call Bedrock."""
        if not self.bench.holds_working_credentials(self.ai_secret):
            self.wrong.append(f"Braintrust holds what does not work, {when}")
        if self.trigger != "memory" and not self.bench.work(self.current()):
            self.wrong.append(f"AWSCURRENT does not work, {when}")

    def current(self):
        held = self.bench.staged(self.target)
        return {
            "auth_type": "api_key" if "api_key" in held else "iam_credentials",
            "access_key": held.get("aws_access_key_id"),
            "secret": held.get("api_key") or held["aws_secret_access_key"],
            "session_token": held.get("aws_session_token"),
            "region": held["region"],
        }

    def recover(self):
        """What comes after by itself: the same again, and the next two ticks, of which one deactivates and one deletes."""
        self.front.clear_faults()
        if not any(self.again() for _ in range(3)):
            self.wrong.append("three more tries failed")
        if self.trigger == "rotation":
            self.bench.stack.client("secretsmanager").cancel_rotate_secret(SecretId=self.target["secret_id"])
        if not all([self.invoke(schedule()), self.invoke(schedule())]):
            self.wrong.append("a tick after the rotation failed")
        self.check("at the end")
        if self.trigger == "memory":
            return
        found, current = self.bench.braintrust.credentials(self.ai_secret), self.current()
        if found["secret"] != current["secret"]:
            self.wrong.append("AWSCURRENT and Braintrust disagree")
        id, listed = self.bench.staged(self.target)["credential_id"], self.bench.listed(self.target)
        if self.kind in STANDING and listed != {id: True}:
            self.wrong.append(f"IAM has {listed}, AWSCURRENT names {id}")
        stages = self.bench.stages(self.target)
        if stages.get("AWSPENDING") not in (None, stages["AWSCURRENT"]):
            self.wrong.append("a pending version is left")

    def stop(self):
        self.shown += "\n".join(self.function.logs()).encode()
        self.function.stop()

    def check_what_is_shown(self):
        caller = self.bench.stack.caller
        secrets = self.bench.aws.minted_secrets - self.not_ours
        secrets |= {self.bench.api_key, caller["AWS_SECRET_ACCESS_KEY"], caller["AWS_SESSION_TOKEN"]}
        sent = [request.headers.get("authorization", "") for request in self.front.requests]
        secrets |= {header.removeprefix("Bearer ") for header in sent if header.startswith("Bearer ")}
        if any(form in self.shown for secret in secrets for form in forms(secret)):
            self.wrong.append("a secret is shown")
