"""`make status`, `make doctor`, `make rotate`, `make rollback`, `make break` and `make stop`.

    operate.py status|doctor|rotate|force|rollback|break|stop [STACK] [TARGETS or WHAT]

With STACK, the deployed CloudFormation stack of that name, with the caller's AWS account; without, what `make run` left
running.
"""

import json
import os
import sys
import tomllib
import urllib.request
from datetime import UTC, datetime

import boto3
import local_stack
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from step import BOLD, GREEN, RED, ROOT, YELLOW, paint

NONE_RUNS = "Nothing runs here: `make run` first, or name a deployed stack with STACK=…"
COLOURS = {"ok": GREEN, "warning": YELLOW, "untold": YELLOW}


class Function:
    """The function to ask, wherever it is."""

    def __init__(self, stack):
        self.state = None if stack else local_stack.load()
        if not stack and not self.state:
            sys.exit(NONE_RUNS)
        if not stack:
            print("What `make run` left running:")
        # botocore itself reads only AWS_DEFAULT_REGION.
        given = self.state["credentials"] if self.state else {"region_name": os.environ.get("AWS_REGION") or None}
        self.session = boto3.session.Session(**given)
        if not self.session.region_name:
            self.session = boto3.session.Session(region_name=saved_region())
        if not self.state:
            print(f"{stack} in {self.session.region_name}")
        self.name = self.state["outputs"]["FunctionName"] if self.state else self.output_of(stack, "FunctionName")

    def client(self, service):
        # A rotation may take a quarter of an hour, and one that is asked for twice is two.
        config = Config(read_timeout=910, retries={"total_max_attempts": 1})
        return self.session.client(service, endpoint_url=self.state and self.state["endpoint_url"], config=config)

    def output_of(self, stack, key):
        [found] = self.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}[key]

    def ask(self, **event):
        """The answer, and whether it is an error."""
        answer = self.client("lambda").invoke(FunctionName=self.name, Payload=json.dumps(event))
        body = json.loads(answer["Payload"].read())
        if "FunctionError" not in answer:
            return body, False
        try:
            return json.loads(body["errorMessage"]), True
        except ValueError:
            return body["errorMessage"], True


def saved_region():
    """The answer that `make deploy` saved."""
    saved = tomllib.loads((ROOT / "samconfig.toml").read_text())["default"]["deploy"]["parameters"]
    return saved.get("region") or sys.exit("Which region? AWS_REGION=… make …")


def age(seconds):
    """In the largest unit of which there are two."""
    if seconds is None:
        return "-"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if abs(seconds) >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def left(time):
    if not time:
        return "-"
    if time == "next_tick":
        return "next tick"
    seconds = int((datetime.fromisoformat(time) - datetime.now(UTC)).total_seconds())
    return f"in {age(seconds)}" if seconds > 0 else f"{age(-seconds)} ago"


def print_table(rows):
    """The first row is the head; the second column is coloured by what it says."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        if number == 0:
            print(paint("  ".join(cells).rstrip(), BOLD))
        else:
            cells[1] = paint(cells[1], COLOURS.get(row[1], RED))
            print("  ".join(cells).rstrip())


def where(target):
    """The ai_secrets, and whether each holds the current credentials."""
    named = []
    for entry in target["ai_secrets"]:
        name, held = entry["ai_secret"], entry.get("access_key_id", "others")
        named.append(name if len(name) < 36 else f"{name[:8]}…")
        if entry.get("holds_current") is False or "credential_id" not in target and "access_key_id" in entry:
            named[-1] += f" (holds {held})"
    return ", ".join(named)


def show_error(error, indent):
    call = " ".join(error[field] for field in ("service", "call") if field in error)
    print(f"{indent}{paint(error['class'], RED)}: {call}: {error['problem']}\n{indent}{error['remedy']}")


def status(function):
    answer, _ = refuse_errors(function.ask(action="status"))
    head = ("target", "state", "kind", "credential", "age", "expires", "next rotation", "rotated by", "ai_secrets")
    rows = [head]
    for target in answer["targets"]:
        facts = (target["name"], target["state"], target["kind"], target.get("credential_id", "-"))
        times = (age(target.get("age_seconds")), left(target.get("expires_at")), left(target.get("next_rotation")))
        rows.append((*facts, *times, target["rotated_by"].replace("_", " "), where(target)))
    print_table(rows)
    for target in answer["targets"]:
        under_way = ["a rotation is under way, and goes on at the next attempt"] if target["rotation_under_way"] else []
        for warning in under_way + target.get("warnings", []):
            print(f"{target['name']}: {paint('warning', YELLOW)}: {warning}")
        if "error" in target:
            print(f"{target['name']}:")
            show_error(target["error"], "  ")
    return answer["ok"]


def doctor(function):
    answer, _ = refuse_errors(function.ask(action="check"))
    for target in answer["targets"]:
        print(paint(target["name"], BOLD))
        for line in target["lines"]:
            print(f"  {paint(line['result'].ljust(7), COLOURS.get(line['result'], RED))}  {line['what']}")
            if "note" in line:
                print(f"           {line['note']}")
            if "error" in line:
                show_error(line["error"], " " * 11)
    return answer["ok"]


def rotate(function, targets, **options):
    """Rotates or rolls back, and shows each target's outcome."""
    named = {"targets": targets.split(",")} if targets else {}
    answer, failed = refuse_errors(function.ask(**options, **named))
    for target in answer["targets"]:
        done = target["outcome"] not in ("failed", "deferred")
        # One that failed may name what was made and is not used.
        credential = f", {target['credential_id']}" if done and "credential_id" in target else ""
        print(f"{target['name']}: {paint(target['outcome'], GREEN if done else RED)}{credential}")
        for retired in target.get("retired", []):
            print(f"  {retired['credential_id']}: {retired['how']}")
        if target["outcome"] == "left_to_secrets_manager":
            print("  Secrets Manager rotates it: aws secretsmanager rotate-secret --secret-id <secret>")
            failed = failed or options.get("force", False)
        for warning in target.get("warnings", []):
            print(f"  {paint('warning', YELLOW)}: {warning}")
        if "error" in target:
            show_error(target["error"], "  ")
    return not failed


def refuse_errors(answer):
    if not isinstance(answer[0], dict):
        sys.exit(paint(answer[0], RED))
    return answer


def break_something(function, what):
    """Breaks what the local stack has, as it breaks in life."""
    state = function.state or sys.exit("Only what runs here can be broken.")
    iam = function.client("iam")
    role = state["outputs"].get("BedrockRoleArn", "").rpartition("/")[2]
    if what == "trust" and role:
        nobody = {"Effect": "Deny", "Principal": "*", "Action": "sts:AssumeRole"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [nobody]})
        iam.update_assume_role_policy(RoleName=role, PolicyDocument=document)
        print("The Bedrock role trusts nobody any more.")
    elif what == "bedrock" and role:
        [policy] = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
        iam.detach_role_policy(RoleName=role, PolicyArn=policy["PolicyArn"])
        print("The Bedrock role may not use Bedrock any more.")
    elif what == "ai_secret":
        change = json.dumps({"secret": "somebody else's", "metadata": {"access_key": "AKIASOMEBODYELSES000"}})
        request = urllib.request.Request(
            f"{state['braintrust_url']}/v1/ai_secret/{state['ai_secret']}", change.encode(), method="PATCH"
        )
        request.add_header("Authorization", f"Bearer {state['braintrust_api_key']}")
        urllib.request.urlopen(request).close()
        print("Somebody else has written other credentials into the ai_secret.")
    else:
        sys.exit("WHAT has to be trust, bedrock (both for kinds that expire) or ai_secret")
    return True


def main():
    action, stack, argument = sys.argv[1:]
    if action == "stop":
        print("Stopped." if local_stack.stop() else "Nothing runs here.")
        return
    try:
        function = Function(stack)
        if action == "status":
            ok = status(function)
        elif action == "doctor":
            ok = doctor(function)
        elif action in ("rotate", "force"):
            ok = rotate(function, argument, action="rotate", force=action == "force")
        elif action == "rollback":
            argument = argument or sys.exit("Name the targets: make rollback TARGETS=default")
            ok = rotate(function, argument, action="rollback")
        else:
            ok = break_something(function, argument)
    except (BotoCoreError, ClientError) as error:
        sys.exit(f"AWS: {error}")
    sys.exit(0 if ok else 1)


main()
