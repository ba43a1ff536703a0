"""Invokes a running function and shows its answer.

    operate.py status|doctor|rotate|force|rollback|break|stop STACK TARGETS_OR_WHAT

STACK is the name of a CloudFormation stack in the caller's AWS account. If it is empty, the function is the one that
`make run` left running. TARGETS_OR_WHAT is empty for all targets, and for actions that need neither.
"""

import sys
from datetime import UTC, datetime

import environment
import local_stack
from botocore.exceptions import BotoCoreError, ClientError
from breakage import break_local_stack
from running_function import RunningFunction
from terminal import BOLD, GREEN, RED, YELLOW, paint

COLOURS = {"ok": GREEN, "warning": YELLOW, "unknown": YELLOW}  # of the lines of a check


def age(seconds):
    """A duration, in the largest unit of which it has at least two."""
    if seconds is None:
        return "-"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if abs(seconds) >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def left(time):
    if not time:
        return "-"
    if time == "next_scheduled_run":
        return "next scheduled run"
    seconds = int((datetime.fromisoformat(time) - datetime.now(UTC)).total_seconds())
    return f"in {age(seconds)}" if seconds > 0 else f"{age(-seconds)} ago"


def print_table(rows):
    """The first row has the headings. The second column is green for `ok` and red for anything else."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        if number == 0:
            print(paint("  ".join(cells).rstrip(), BOLD))
        else:
            cells[1] = paint(cells[1], GREEN if row[1] == "ok" else RED)
            print("  ".join(cells).rstrip())


def destinations(target):
    """The target's ai_secrets, each with the credentials that it holds if these are not the current ones."""
    shown = []
    for entry in target["ai_secrets"]:
        name, holds = entry["ai_secret"], entry.get("access_key_id", "other credentials")
        shown.append(name if len(name) < 36 else f"{name[:8]}…")
        if entry.get("holds_current") is False or "credential_id" not in target and "access_key_id" in entry:
            shown[-1] += f" (holds {holds})"
    return ", ".join(shown)


def show_error(error, indent):
    call = " ".join(error[field] for field in ("service", "call") if field in error)
    print(f"{indent}{paint(error['class'], RED)}: {call}: {error['problem']}\n{indent}{error['remedy']}")


def status(function):
    answer, _ = refuse_errors(function.invoke(action="status"))
    rows = [("target", "state", "kind", "credential", "age", "expires", "next rotation", "rotated by", "ai_secrets")]
    for target in answer["targets"]:
        facts = (target["name"], target["state"], target["kind"], target.get("credential_id", "-"))
        times = (age(target.get("age_seconds")), left(target.get("expires_at")), left(target.get("next_rotation")))
        rows.append((*facts, *times, target["rotated_by"].replace("_", " "), destinations(target)))
    print_table(rows)
    for target in answer["targets"]:
        under_way = ["a rotation is under way, and the next attempt resumes it"] if target["rotation_under_way"] else []
        for warning in under_way + target.get("warnings", []):
            print(f"{target['name']}: {paint('warning', YELLOW)}: {warning}")
        if "error" in target:
            print(f"{target['name']}:")
            show_error(target["error"], "  ")
    return answer["ok"]


def doctor(function):
    answer, _ = refuse_errors(function.invoke(action="check"))
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
    listed = [name.strip() for name in targets.split(",") if name.strip()]
    names = {"targets": listed} if listed else {}
    answer, failed = refuse_errors(function.invoke(**options, **names))
    for target in answer["targets"]:
        done = target["outcome"] not in ("failed", "deferred")
        # A failed target may name credentials that were created and are not in use.
        credential = f", {target['credential_id']}" if done and "credential_id" in target else ""
        print(f"{target['name']}: {paint(target['outcome'], GREEN if done else RED)}{credential}")
        for retired in target.get("retired", []):
            print(f"  {retired['credential_id']}: {retired['how']}")
        if target["outcome"] == "left_to_secrets_manager":
            print("  Secrets Manager rotates this target: aws secretsmanager rotate-secret --secret-id <secret>")
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


def operate(action, function, argument):
    """Returns whether all is well."""
    match action:
        case "status":
            return status(function)
        case "doctor":
            return doctor(function)
        case "rotate" | "force":
            return rotate(function, argument, action="rotate", force=action == "force")
        case "rollback" if argument:
            return rotate(function, argument, action="rollback")
        case "rollback":
            sys.exit("Name the targets to roll back: make rollback TARGETS=default")
        case "break":
            break_local_stack(function, argument)
            return True
    sys.exit(__doc__)


def main():
    action, stack, argument = sys.argv[1:]
    environment.prepare(aws_account=bool(stack))
    if action == "stop":
        print("Stopped." if local_stack.stop() else "Nothing is running.")
        return
    try:
        ok = operate(action, RunningFunction(stack), argument)
    except (BotoCoreError, ClientError) as error:
        sys.exit(f"AWS: {error}")
    sys.exit(0 if ok else 1)


main()
