"""Invokes a running function and shows its answer.

    operate.py status|doctor|rotate|rollback|revoke STACK TARGETS [FIELD ...]
    operate.py inventory STACK [json]
    operate.py break WHAT
    operate.py mend
    operate.py stop

STACK is the name of a CloudFormation stack in the caller's AWS account. If it is empty, the function is the one that
`make run` left running. TARGETS is empty for all targets. Each FIELD is set to true in the event: force, dry_run,
reactivate or api_key. With yes, revoke doesn't ask for confirmation. With json, the function's answer is printed as JSON.
"""

import json
import sys
from datetime import UTC, datetime

import answers
import cloudwatch
import environment
import inventory
import local_stack
import revoke
from botocore.exceptions import BotoCoreError, ClientError
from breakage import break_local_stack, mend_local_stack
from goals import command_for
from running_function import RunningFunction
from terminal import RED, page, paint

ACTIONS = {"status": "status", "doctor": "check", "inventory": "inventory"}
ACTIONS |= {"rotate": "rotate", "rollback": "rollback", "revoke": "revoke"}


def invoke(function, action, names, fields=()):
    """Returns the answer, and whether it is an error."""
    event = {"action": ACTIONS[action], **({"targets": names} if names else {}), **dict.fromkeys(fields, True)}
    answer, failed = function.invoke(**event)
    if not isinstance(answer, dict):
        sys.exit(paint(answer, RED))
    return answer, failed


def names_in(targets):
    names = [name.strip() for name in targets.split(",") if name.strip()]
    if targets and not names:
        sys.exit(f'TARGETS="{targets}" names no target.')
    return names


def left_to_secrets_manager(report):
    return [target for target in report["targets"] if target["outcome"] == "left_to_secrets_manager"]


def add_secrets(function, report):
    """Adds the secrets that Secrets Manager rotates, which only the status names, to the targets of a report."""
    left = left_to_secrets_manager(report)
    if left:
        status, _ = invoke(function, "status", [target["name"] for target in left])
        for target, state in zip(left, status["targets"], strict=True):
            target["secret_id"] = state.get("secret_id", "<secret>")  # an older function doesn't say it
    return bool(left)


def operate(action, stack, targets, fields):
    """Returns whether all is well."""
    names = names_in(targets)
    is_api_key_alone = action == "revoke" and "api_key" in fields and "force" not in fields
    if action in ("rollback", "revoke") and not names and not is_api_key_alone:
        verb = {"rollback": "roll back", "revoke": "revoke"}[action]
        sys.exit(f"Name the targets to {verb}. For example: {command_for(stack)(action, TARGETS='default')}")
    function = RunningFunction(stack)
    if "json" in fields:
        return print_answer(function, action, names, [field for field in fields if field != "json"])
    print(f"{function.title}:\n")
    if action == "revoke":
        return run_revocation(function, names, fields, command_for(stack))
    return show_answer(function, action, names, fields, command_for(stack))


def print_answer(function, action, names, fields):
    """Prints the answer as JSON. Returns whether all is well."""
    if action == "revoke" and not {"yes", "dry_run"} & set(fields):
        sys.exit("JSON=true doesn't ask for confirmation. Add DRY_RUN=true or YES=true.")
    answer, failed = invoke(function, action, names, [field for field in fields if field != "yes"])
    print(json.dumps(answer, indent=2))
    if action == "revoke":
        return revoke.is_done(answer, failed)
    return answer.get("ok", not failed and not ("force" in fields and left_to_secrets_manager(answer)))


def run_revocation(function, names, fields, command):
    def show(answer):
        print(*revoke.render(answer, page(), datetime.now(UTC), command), sep="\n")

    return revoke.run(lambda fields: invoke(function, "revoke", names, fields), show, names, fields)


def show_answer(function, action, names, fields, command):
    answer, failed = invoke(function, action, names, fields)
    now = datetime.now(UTC)
    match action:
        case "status":
            past = cloudwatch.read(function, [target["name"] for target in answer["targets"]], now)
            print(*answers.status(answer, past, page(), now, command), sep="\n")
            return answer["ok"]
        case "doctor":
            print(*answers.doctor(answer, page()), sep="\n")
            return answer["ok"]
        case "inventory":
            print(*inventory.inventory(answer, page(), now), sep="\n")
            return answer["ok"]
    # A forced rotation fails if it is left to Secrets Manager.
    not_done = add_secrets(function, answer) and "force" in fields
    print(*answers.report(answer, page(), now, command), sep="\n")
    return not failed and not not_done


def main():
    action, *arguments = sys.argv[1:]
    stack = arguments[0] if action in ACTIONS else ""
    environment.prepare(aws_account=bool(stack))
    if action == "stop":
        print("Stopped." if local_stack.stop() else "Nothing is running.")
        return
    try:
        match action, arguments:
            case "break", [what]:
                ok = break_local_stack(RunningFunction("", only_local=True), what, page())
            case "mend", []:
                ok = mend_local_stack(RunningFunction("", only_local=True), page())
            case "inventory", [stack, *fields] if fields in ([], ["json"]):
                ok = operate(action, stack, "", fields)
            case _, [stack, targets, *fields] if action in ACTIONS:
                ok = operate(action, stack, targets, fields)
            case _:
                sys.exit(__doc__)
    except (BotoCoreError, ClientError) as error:
        sys.exit(f"AWS: {error}")
    sys.exit(0 if ok else 1)


main()
