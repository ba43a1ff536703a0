"""`make run`: deploys the template into a local AWS, rotates twice, and shows what that did to the ai_secret."""

import sys
import time
from datetime import UTC, datetime

from step import BOLD, GREEN, RED, ROOT, YELLOW, Progress, exit_on_signals, paint, run

sys.path.insert(0, str(ROOT / "tests"))
from local.deployment import deploy, invoke  # noqa: E402
from local.stack import Stack  # noqa: E402

MINISTACK = ROOT / ".tools/ministack/bin/ministack"
STACK_NAME = "bedrock-braintrust-rotator"
TEMPLATE = ROOT / ".aws-sam/build/template.yaml"
OLD = {"auth_type": "iam_credentials", "access_key": "ASIAOLDOLDOLDOLDOLD0", "region": "us-east-1"}
OLD |= {"session_token": "IQoJb3JpZ2luOfASessionThatExpiredLongAgo"}
SECRET = ("secret", "session_token", "aws_secret_access_key", "aws_session_token")


class Step(Progress):
    """What the screen says while something is done here, and how long that took."""

    def __enter__(self):
        self.say()
        return self

    def __exit__(self, kind, *_):
        self.took = self.seconds()
        self.end(*(("ok", GREEN) if kind is None else ("stopped", YELLOW) if kind is SystemExit else ("failed", RED)))


def redacted(field, value):
    if field not in SECRET or not value:
        return str(value)
    return f"{value[:4]}… ({len(value)} characters)"


def contents(stack, ai_secret):
    """An ai_secret's fields as they may be shown, and whether a gateway that reads them could call Bedrock."""
    held = stack.braintrust.ai_secrets[ai_secret]
    fields = {"secret": held["secret"], **held["metadata"]}
    shown = {field: redacted(field, value) for field, value in sorted(fields.items())}
    found = stack.braintrust.credentials(ai_secret)
    works = stack.aws.works(found["access_key"], found["secret"], found["session_token"], found["region"])
    return shown | {"can call Bedrock": "yes" if works else "no"}


def show_ai_secret(before, after):
    print(f"\n{paint('ai_secret', BOLD)}             {'before':<36}after")
    for field in {**before, **after}:
        old, new = before.get(field, "-"), after.get(field, "-")
        print(f"  {field:<18}  {old:<36}{new if old == new else paint(new, GREEN)}")


def show_report(report):
    print(f"\n{paint('report', BOLD)}  trigger {report['trigger']}, {report['duration_ms']} ms")
    for target in report["targets"]:
        outcome = paint(target["outcome"], RED if target["outcome"] in ("failed", "deferred") else GREEN)
        line = f"  {target['name']}: {outcome}, {target['kind']}, {target['region']}"
        if "credential_id" in target:
            line += f", {target['credential_id']}"
        if "expires_at" in target:
            left = datetime.fromisoformat(target["expires_at"]) - datetime.now(UTC)
            line += f", expires {target['expires_at']} (in {left.total_seconds() / 60:.0f} min)"
        print(line)
        for ai_secret in target["ai_secrets"]:
            print(f"    ai_secret {ai_secret['ai_secret']}: {'updated' if ai_secret['updated'] else 'not updated'}")
        for warning in target.get("warnings", []):
            print(f"    {paint('warning', YELLOW)}: {warning}")
        if "error" in target:
            error = target["error"]
            where = " ".join(error[field] for field in ("service", "call") if field in error)
            print(f"    {paint(error['class'], RED)}: {where}: {error['problem']}\n    {error['remedy']}")


def rotate(stack, started):
    ai_secret = stack.braintrust.add_ai_secret("AWS Bedrock", metadata=dict(OLD), secret="0ldS3cretAccessKeyThatNoLongerWorks00000")
    before = contents(stack, ai_secret)
    parameters = {
        "BraintrustApiKey": stack.braintrust_api_key,
        "BraintrustApiUrl": stack.braintrust.url,
        "AiSecretId": ai_secret,
    }
    start = time.monotonic()
    outputs = deploy(stack, TEMPLATE, STACK_NAME, parameters, lambda *command: run("sam deploy", *command))
    deployed, function = time.monotonic() - start, outputs["FunctionName"]
    event = (ROOT / "events/schedule.json").read_text()
    with Step("rotate, cold start") as cold:
        report, failed = invoke(stack, function, event)
    after = contents(stack, ai_secret)
    if not failed:
        with Step("rotate, warm") as warm:
            _, failed = invoke(stack, function, event)
    show_ai_secret(before, after)
    if isinstance(report, dict) and "targets" in report:
        show_report(report)
    if failed:
        if not isinstance(report, dict):
            print(f"\n{report}")
        sys.exit(paint("The function failed.", RED))
    print(
        f"\n{paint('times', BOLD)}  local stack {started:.1f} s, deploy {deployed:.1f} s,"
        f" rotate cold {cold.took * 1000:.0f} ms, warm {warm.took * 1000:.0f} ms"
    )


def main():
    exit_on_signals()
    start = Progress("start the local AWS and Braintrust")
    start.say()
    with Stack(MINISTACK) as stack:
        started = start.seconds()
        start.end("ok", GREEN)
        rotate(stack, started)


main()
