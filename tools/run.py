"""Deploys the template to a local AWS, rotates, and shows how that changed the ai_secret.

    run.py KIND TRIGGER

With the trigger `schedule`, the function is invoked for two scheduled runs, the second of which finds it warm. With
`rotation`, Secrets Manager invokes it for the four rotation steps. The local stack runs for another hour, so that
`make status`, `make doctor`, `make rotate`, `make rollback` and `make break` can use it.
"""

import json
import sys
import uuid
from datetime import UTC, datetime, timedelta

import environment
import local_stack
from environment import ROOT
from step import exit_on_signals
from terminal import BOLD, GREEN, RED, YELLOW, Progress, paint

sys.path.insert(0, str(ROOT / "tests"))
from support.deployment import deploy_directly, invoke, report_of  # noqa: E402
from support.local_cloud import LocalCloud  # noqa: E402
from support.paths import MINISTACK  # noqa: E402

AN_HOUR = 3600
STACK_NAME = "bedrock-braintrust-rotator"
TEMPLATE = ROOT / "template.yaml"
OLD = {"auth_type": "iam_credentials", "access_key": "ASIAOLDOLDOLDOLDOLD0", "region": "us-east-1"}
OLD |= {"session_token": "IQoJb3JpZ2luOfASessionThatExpiredLongAgo"}
OLD_SECRET = "0ldS3cretAccessKeyThatNoLongerWorks00000"
EVENT = json.loads((ROOT / "events/schedule.json").read_text())
SECRET_FIELDS = ("secret", "session_token", "aws_secret_access_key", "aws_session_token")


class Task(Progress):
    """The progress of work in this process, and how long that work took."""

    def __enter__(self):
        self.say()
        return self

    def __exit__(self, kind, *_):
        self.took = self.seconds()
        self.end(*(("ok", GREEN) if kind is None else ("stopped", YELLOW) if kind is SystemExit else ("failed", RED)))


def redacted(field, value):
    if field not in SECRET_FIELDS or not value:
        return str(value) or "(empty)"
    return f"{value[:4]}… ({len(value)} characters)"


def contents(stack, ai_secret):
    """The ai_secret's fields, secrets redacted, and whether a gateway that reads them could call Bedrock."""
    stored = stack.braintrust.ai_secrets[ai_secret]
    fields = {"secret": stored["secret"], **stored["metadata"]}
    shown = {field: redacted(field, value) for field, value in sorted(fields.items())}
    read = stack.braintrust.credentials(ai_secret)
    if read["auth_type"] == "api_key":
        works = stack.aws.key_works(read["secret"], read["region"])
    else:
        works = stack.aws.works(read["access_key"], read["secret"], read["session_token"], read["region"])
    return shown | {"can call Bedrock": "yes" if works else "no"}


def show_ai_secret(before, after):
    print(f"\n{paint('ai_secret', BOLD)}             {'before':<36}after")
    for field in {**before, **after}:
        old, new = before.get(field, "-"), after.get(field, "-")
        print(f"  {field:<18}  {old:<36}{new if old == new else paint(new, GREEN)}")


def show_report(name, report):
    print(f"\n{paint(name, BOLD)}")
    if not isinstance(report, dict) or "targets" not in report:
        print(f"  {report}")
        return
    for target in report["targets"]:
        outcome = paint(target["outcome"], RED if target["outcome"] in ("failed", "deferred") else GREEN)
        line = f"  {target['name']}: {outcome}, {target['kind']}, {target['region']}"
        if "credential_id" in target:
            line += f", {target['credential_id']}"
        if "expires_at" in target:
            left = datetime.fromisoformat(target["expires_at"]) - datetime.now(UTC)
            unit = timedelta(days=1) if left.days > 1 else timedelta(minutes=1)
            line += f", expires {target['expires_at']} (in {left / unit:.0f} {'days' if unit.days else 'min'})"
        print(line)
        for ai_secret in target.get("ai_secrets", []):
            state = "holds the new credentials" if ai_secret["updated"] else "not updated"
            print(f"    ai_secret {ai_secret['ai_secret']}: {state}")
        for retired in target.get("retired", []):
            print(f"    {retired['credential_id']}: {retired['how']}")
        for warning in target.get("warnings", []):
            print(f"    {paint('warning', YELLOW)}: {warning}")
        if "error" in target:
            error = target["error"]
            call = " ".join(error[field] for field in ("service", "call") if field in error)
            print(f"    {paint(error['class'], RED)}: {call}: {error['problem']}\n    {error['remedy']}")


def show_stages(stack, secret):
    versions = stack.client("secretsmanager").describe_secret(SecretId=secret).get("VersionIdsToStages", {})
    print(f"\n{paint('staged secret', BOLD)}  {secret}")
    for version, stages in versions.items():
        print(f"  {version}  {', '.join(sorted(stages))}")


def by_schedule(stack, outputs):
    """Yields, for each of two scheduled runs, its name, its report, whether it failed, and its milliseconds."""
    for name in ("first scheduled run", "second scheduled run"):
        with Task(name) as task:
            # An event with the same ID would count as the first one, delivered again.
            event = json.dumps(EVENT | {"id": str(uuid.uuid4())})
            report, failed = invoke(stack, outputs["FunctionName"], event)
        yield name, report, failed, task.took * 1000


def by_secrets_manager(stack, outputs):
    """Yields the same for each of the four rotation steps."""
    secret, rules = outputs["StagedSecretArn"], {"AutomaticallyAfterDays": 30}
    with Task("rotate by Secrets Manager"):
        stack.client("secretsmanager").rotate_secret(
            SecretId=secret, RotationLambdaARN=outputs["FunctionArn"], RotationRules=rules
        )
        steps = stack.aws.wait_for_rotation(secret)
    for step in steps:
        report = report_of(step.body)
        yield step.name, report, not step.ok, report["duration_ms"] if step.ok else 0


TRIGGERS = {"schedule": by_schedule, "rotation": by_secrets_manager}


def rotate(stack, kind, trigger, started):
    ai_secret = stack.braintrust.add_ai_secret("AWS Bedrock", metadata=dict(OLD), secret=OLD_SECRET)
    before = contents(stack, ai_secret)
    parameters = {
        "BraintrustApiKey": stack.braintrust_api_key,
        "BraintrustApiUrl": stack.braintrust.url,
        "AiSecretId": ai_secret,
        "Kind": kind,
        "StageCredentials": "true",
    }
    with Task("deploy the template") as deployment:
        outputs = deploy_directly(stack, TEMPLATE, STACK_NAME, parameters)
    times = [f"local stack {started:.1f} s, deploy {deployment.took:.1f} s"]
    done = list(TRIGGERS[trigger](stack, outputs))
    for name, report, _, took in done:
        show_report(name, report)
        times.append(f"{name} {took:.0f} ms")
    show_ai_secret(before, contents(stack, ai_secret))
    show_stages(stack, outputs["StagedSecretArn"])
    if any(failed for _, _, failed, _ in done):
        sys.exit(paint("The function failed.", RED))
    print(f"\n{paint('times', BOLD)}  {', '.join(times)}")
    return {"outputs": outputs, "ai_secret": ai_secret}


def what_next(stack, kind, trigger, secret):
    """Yields the arguments of `make` that have something to show after this kind and trigger."""
    yield from ("status", "doctor")
    if trigger == "schedule":
        yield "rotate FORCE=true"
    if holds_previous_credentials(stack.client("secretsmanager"), secret):
        yield "rollback TARGETS=default"
    if kind in ("temporary", "short_term_api_key"):
        yield "break WHAT=trust"
    elif kind == "access_key":
        yield "break WHAT=ai_secret"
    yield "stop"


def holds_previous_credentials(secrets_manager, secret):
    """Whether there is something to roll back to, and not just the template's placeholder."""
    versions = secrets_manager.describe_secret(SecretId=secret)["VersionIdsToStages"]
    if not any("AWSPREVIOUS" in stages for stages in versions.values()):
        return False
    previous = secrets_manager.get_secret_value(SecretId=secret, VersionStage="AWSPREVIOUS")["SecretString"]
    return "credential_id" in json.loads(previous or "{}")


def work(done):
    kind, trigger = sys.argv[1:]
    start = Progress("start the local AWS and Braintrust")
    start.say()
    with LocalCloud(MINISTACK) as stack:
        started = start.seconds()
        start.end("ok", GREEN)
        rotated = rotate(stack, kind, trigger, started)
        root = stack.ministack.root
        local_stack.save(
            **rotated,
            endpoint_url=stack.aws.url,
            credentials={
                "aws_access_key_id": root["AWS_ACCESS_KEY_ID"],
                "aws_secret_access_key": root["AWS_SECRET_ACCESS_KEY"],
                "region_name": "us-east-1",
            },
            braintrust_url=stack.braintrust.url,
            braintrust_api_key=stack.braintrust_api_key,
        )
        actions = ", ".join(what_next(stack, kind, trigger, rotated["outputs"]["StagedSecretArn"]))
        print(f"\nThe local stack runs for another hour. Try make {actions}")
        sys.stdout.flush()
        done()
        local_stack.stay(AN_HOUR)


def main():
    environment.prepare()
    exit_on_signals()
    start = local_stack.Start()
    local_stack.stop_running()
    local_stack.in_background(start, work)


main()
