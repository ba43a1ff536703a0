"""Shows the function's answers: each function here turns one answer into lines of text.

They are pure, so they get the time, the page, and `command`, which returns the command line for a goal: for example,
`command("rotate", TARGETS="prod")` is `make rotate STACK=rotator TARGETS=prod`. `command.rotate_secret(target)` has
Secrets Manager rotate.
"""

from datetime import datetime, timedelta

from page import BOLD, GREEN, RED, YELLOW
from run_history import DAYS, MINUTE

# Longer lines are hard to read.
WIDEST = 99
# A longer list of targets would hide those that need attention among those that don't.
MANY_TARGETS = 4
NONE_LATELY = f"none in the last {DAYS} days"
ROLE_BASED = ("temporary", "short_term_api_key")
API_KEYS = ("short_term_api_key", "long_term_api_key")
SERVICES = {
    "function": "the function",
    "iam": "IAM",
    "sts": "STS",
    "secrets_manager": "Secrets Manager",
    "s3": "S3",
    "bedrock": "Bedrock",
    "braintrust": "Braintrust",
}
# The states in which nobody has to do anything.
FINE = ("ok", "uses_assume_role")
STATE_COLORS = {"ok": GREEN, "uses_assume_role": GREEN, "never_rotated": YELLOW, "unknown": YELLOW}
RESULT_COLORS = {"ok": GREEN, "warning": YELLOW, "unknown": YELLOW}


def duration(seconds):
    """A duration, in the largest unit of which it has at least two."""
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{round(seconds / size)} {unit}"
    return "1 second" if int(seconds) == 1 else f"{int(seconds)} seconds"


def when(time, now):
    # Before Python 3.11, fromisoformat doesn't know the Z.
    seconds = (datetime.fromisoformat(time.replace("Z", "+00:00")) - now).total_seconds()
    return "in " + duration(seconds) if seconds > 0 else duration(-seconds) + " ago"


def expiry(time, now):
    text = when(time, now)
    return "expired " + text if text.endswith("ago") else "expires " + text


def count(number, noun):
    return "{} {}{}".format(number, noun, "" if number == 1 else "s")


def what_failed(error):
    call = "{} {}".format(SERVICES.get(error["service"], error["service"]), error["call"])
    is_sentence = error["problem"].startswith("answered ")
    return "{}{} {}".format(call, "" if is_sentence else ":", error["problem"])


def error(error, page, indent):
    lines = page.paragraph("{} ({}).".format(what_failed(error), error["class"]), indent)
    lines += page.paragraph(_sentence(error["remedy"]), indent)
    aws = error.get("aws", {})
    if "message" in aws:
        lines += page.paragraph("AWS says: " + aws["message"], indent)
    if "request_id" in aws:
        lines += page.paragraph("Request ID: " + aws["request_id"], indent)
    return lines


def _sentence(text):
    return text if text.endswith((".", "`")) else text + "."


def old_list(answer, page):
    """Why the function doesn't use the newest list of targets. Empty if it does."""
    if "targets_error" not in answer:
        return []
    text = ": the newest list of targets can't be used, so the function uses the last good one."
    return [*page.paragraph(page.paint("Problem", RED) + text), *error(answer["targets_error"], page, "  "), ""]


# Status


def status(answer, past, page, now, command):
    """A block for each target. Of many targets, those that are ok get one line each, and come first.

    `past` is as much of their history as could be read.
    """
    page, targets = page.at_most(WIDEST), answer["targets"]
    lines = old_list(answer, page)[:-1]
    attention = [target for target in targets if _needs_attention(target, past, command)]
    if len(targets) > MANY_TARGETS:
        for target in targets:
            if target not in attention:
                lines += _in_one_line(target, page, now)
        blocks = attention
    else:
        blocks = targets
    for target in blocks:
        lines += ([""] if lines else []) + _block(target, past, page, now, command)
    left = answer.get("left_out", {})
    if len(targets) > 1:
        healthy = sum(target["state"] in FINE for target in targets) + sum(left.get(state, 0) for state in FINE)
        lines += ["", f"{healthy} of {len(targets) + sum(left.values())} targets are ok."]
    lines += left_out(answer, page)
    return lines + [line for reason in past.unknown for line in ["", *page.paragraph(reason, "  ", "")]]


def _needs_attention(target, past, command):
    found = past.histories.get(target["name"])
    return target["state"] != "ok" or bool(_notes(target, command)) or bool(found and found.is_failing())


def _in_one_line(target, page, now):
    facts = [target["kind"], *([target["credential_id"]] if "credential_id" in target else [])]
    facts += [expiry(target["expires_at"], now)] if "expires_at" in target else []
    return page.paragraph("{}: {}, {}".format(target["name"], page.paint("ok", GREEN), ", ".join(facts)), "  ", "")


def _block(target, past, page, now, command):
    state = page.paint(target["state"].replace("_", " "), STATE_COLORS.get(target["state"], RED))
    lines = ["{}: {}".format(page.paint(target["name"], BOLD), state)]
    rows = [
        ("kind", "{} in {}".format(target["kind"], target["region"])),
        ("credentials", _credentials(target, now)),
        ("next rotation", _next_rotation(target, now)),
        ("last success", _last_success(target, past, now)),
    ]
    if found := past.histories.get(target["name"]):
        rows.append(("last failure", _last_failure(found, now)))
    rows += [("ai_secret", _destination(target, entry)) for entry in target["ai_secrets"]]
    for label, text in rows:
        lines += page.paragraph(text, " " * 17, f"  {label:<15}")
    if "error" in target:
        lines += error(target["error"], page, "  ")
    for color, note in _notes(target, command):
        text = page.paragraph(note, "  ")
        lines += [page.paint(line, color) if color else line for line in text]
    return lines


def _credentials(target, now):
    if target["state"] == "uses_assume_role":
        return "none: Braintrust assumes a role itself"
    if target["state"] == "never_rotated":
        return "none yet"
    facts = [target.get("credential_id", "unknown ID")]
    if "age_seconds" in target:
        facts.append(duration(max(0, target["age_seconds"])) + " old")
    if "expires_at" in target:
        facts.append(expiry(target["expires_at"], now))
    return ", ".join(facts)


def _next_rotation(target, now):
    if target["state"] == "uses_assume_role":
        return "none, until the ai_secret holds credentials again"
    who = {"schedule": "by the schedule", "secrets_manager": "by Secrets Manager"}[target["rotated_by"]]
    time = target.get("next_rotation")
    if time is None:
        return who + ", at an unknown time"
    return "{}, {}".format("at the next scheduled run" if time == "next_scheduled_run" else when(time, now), who)


def _last_success(target, past, now):
    """The metrics count the runs of a minute. What became current or changed within that minute tells the second."""
    found, since, age = past.histories.get(target["name"]), target.get("current_since"), target.get("age_seconds")
    began = now - timedelta(seconds=age) if age is not None else None
    since = datetime.fromisoformat(since) if since else None
    if found and (minute := found.last_success):
        return _ago(next((time for time in (since, began) if time and minute <= time < minute + MINUTE), minute), now)
    if since:
        return _ago(since, now)
    text = NONE_LATELY if found else "unknown"
    if began:
        what = "the current credentials were created" if "secret_id" in target else "the ai_secret last changed"
        text += f"; {what} {_ago(began, now)}"
    return text


def _last_failure(found, now):
    if not found.last_failure:
        return NONE_LATELY
    if not found.failure:
        how = ", of an unknown class"
    elif "error" in found.failure:
        how = ": {} ({})".format(what_failed(found.failure["error"]), found.failure["error"]["class"])
    else:
        how = ": too little time was left for this target (deferred)"
    return _ago(found.last_failure, now) + how + _failed_runs(found)


def _failed_runs(found):
    if not found.failed:
        return "; in the same minute as the last success" if found.is_unordered else ""
    runs = "1 run has" if found.failed == 1 else f"{found.failed} runs have"
    since = "since the last success" if found.last_success else f"in the last {DAYS} days"
    return "; {}{} failed {}".format("at least " if found.is_unordered else "", runs, since)


def _ago(time, now):
    return duration(max(0, int((now - time).total_seconds()))) + " ago"


def _destination(target, entry):
    found = entry.get("access_key_id")
    if "error" in entry:
        holds = "could not be read"
    elif entry.get("uses_assume_role"):
        holds = "makes Braintrust assume a role itself"
    elif entry.get("holds_current"):
        holds = "holds the current credentials"
    elif entry.get("holds_current") is False:
        holds = "holds other credentials" + (f" ({found})" if found else "")
    elif found:
        holds = "holds " + found
    elif target["kind"] in API_KEYS:
        holds = "holds an API key, which can't be read back"
    else:
        holds = "holds no access key"
    return "{} {}".format(entry["ai_secret"], holds)


def _notes(target, command):
    """What to know and to do about a target, each with its color, or None."""
    notes = [(YELLOW, _sentence("Warning: " + warning)) for warning in target.get("warnings", [])]
    advice = _advice(target, command)
    if target["rotation_under_way"]:
        notes.append((None, _unfinished(target, command, has_advice=bool(advice))))
    return notes + ([(None, advice)] if advice else [])


def _unfinished(target, command, has_advice):
    by_secrets_manager, name = target["rotated_by"] == "secrets_manager", target["name"]
    who = "Secrets Manager's next attempt" if by_secrets_manager else "The next scheduled run"
    text = f"A rotation isn't finished. {who} resumes it."
    if has_advice:  # two commands would compete
        return text
    if by_secrets_manager:
        return "{} To see what it needs: `{}`".format(text, command("doctor", TARGETS=name))
    return "{} To resume it now: `{}`".format(text, command("rotate", TARGETS=name))


def _advice(target, command):
    """What a state that isn't ok means, and the command that helps."""
    name, state = target["name"], target["state"]
    rotate, doctor = command("rotate", TARGETS=name), command("doctor", TARGETS=name)
    if target["rotated_by"] == "secrets_manager":
        rotate = command.rotate_secret(target)
    if state == "never_rotated":
        return f"There has been no rotation yet, so Braintrust holds what it held before. To rotate now: `{rotate}`"
    if state == "overdue" and target["kind"] in ROLE_BASED:
        text = (
            "The credentials have used three quarters of their lifetime, so a scheduled run has failed or is missing."
        )
        return f"{text} To find out why: `{doctor}`"
    if state == "overdue":
        return f"The rotation is more than a day late. To find out why: `{doctor}`"
    if state == "expired":
        return f"Bedrock refuses these credentials, because they have expired. To rotate now: `{rotate}`"
    if state == "out_of_step":
        text = "Somebody else has written to the ai_secret, or a run was interrupted. The next scheduled run writes the"
        # A scheduled run repairs this even if Secrets Manager rotates the secret.
        return "{} current credentials. To do that now: `{}`".format(text, command("rotate", TARGETS=name))
    if state == "unknown" and "error" not in target:
        text = "The data plane doesn't say when the ai_secret last changed, so the age of its credentials is unknown."
        return f"{text} To check everything else: `{doctor}`"
    return ""


# Doctor


def doctor(answer, page):
    """The lines of each target, and the verdict. Of many targets, those without problems and warnings get one line."""
    page, targets = page.at_most(WIDEST), answer["targets"]
    lines = old_list(answer, page)
    for target in targets:
        calm = all(line["result"] in ("ok", "unknown") for line in target["lines"])
        if len(targets) > MANY_TARGETS and calm:
            lines.append("{}: {}".format(target["name"], page.paint("ok", GREEN)))
            continue
        lines += [page.paint(target["name"], BOLD)]
        for line in target["lines"]:
            lines += _checked(line, page)
    return [*lines, *left_out(answer, page), "", *page.paragraph(verdict(answer, page))]


def _checked(line, page):
    indent, result = " " * 11, line["result"]
    label = page.paint(result, RESULT_COLORS.get(result, RED)) + " " * (9 - len(result))
    lines = page.paragraph(line["what"], indent, "  " + label)
    if "note" in line:
        lines += page.paragraph(_sentence(line["note"][0].upper() + line["note"][1:]), indent)
    if "error" in line:
        lines += error(line["error"], page, indent)
    return lines


def is_unread(line):
    """Whether a part of Braintrust could not be read. No rotation shows what is there."""
    return line["result"] == "unknown" and line["what"].startswith("look at ")


def verdict(answer, page):
    """One sentence: whether a rotation would succeed, as far as can be told without one."""
    targets = answer["targets"]
    results = [line["result"] for target in targets for line in target["lines"]]
    failed = [what_failed(answer["targets_error"])] if "targets_error" in answer else []
    for target in targets:
        problems = [what_failed(line["error"]) for line in target["lines"] if line["result"] == "failed"]
        failed += [target["name"] + ": " + problem if len(targets) > 1 else problem for problem in problems]
    if failed:
        more = [f"and {len(failed) - 3} more"] if len(failed) > 3 else []
        return "{}: {}".format(page.paint(count(len(failed), "problem"), RED), "; ".join(failed[:3] + more))
    parts = [page.paint("Healthy", GREEN)]
    if warnings := results.count("warning"):
        parts.append(count(warnings, "warning"))
    unread = sum(is_unread(line) for target in targets for line in target["lines"])
    if unknown := results.count("unknown") - unread:
        parts.append(count(unknown, "thing") + " only a rotation can tell")
    if unread:
        parts.append(count(unread, "thing") + " in Braintrust could not be read")
    return "; ".join(parts)


# Rotations and rollbacks


def report(answer, page, now, command):
    """Each target's outcome."""
    lines = old_list(answer, page)
    for target in answer["targets"]:
        lines += _outcome(target, page, now) + _after(target, page, command)
    return lines + left_out(answer, page, "The function's log has all of them.") + dry_run(answer)


def left_out(answer, page, where="To see one, name it with TARGETS=…."):
    """How many targets the answer leaves out, and where they are. Those that need attention are left out last."""
    counts = answer.get("left_out", {})
    if not counts:
        return []
    text = ", ".join("{} {}".format(number, label.replace("_", " ")) for label, number in counts.items())
    text = f"The answer had no room for these targets: {text}. {where}"
    return ["", *page.paragraph(text)]


def dry_run(answer):
    return ["This was a dry run: nothing has changed."] if answer.get("dry_run") else []


def has_failed(target):
    return target["outcome"] in ("failed", "deferred")


def outcome_words(target):
    return "done" if target["outcome"] == "step_done" else target["outcome"].replace("_", " ")


def _outcome(target, page, now):
    facts = [page.paint(outcome_words(target), RED if has_failed(target) else GREEN)]
    # A failed target may name credentials that were created and are not in use.
    if not has_failed(target) and "credential_id" in target:
        is_replaced = target["outcome"] in ("revoked", "replaced", "rolled_back")
        facts.append(("Braintrust now holds " if is_replaced else "") + target["credential_id"])
        facts += [expiry(target["expires_at"], now)] if "expires_at" in target else []
    return page.paragraph("{}: {}".format(target["name"], ", ".join(facts)), "  ", "")


def _after(target, page, command):
    lines, outcome, name = [], target["outcome"], target["name"]
    for retired in target.get("retired", []):
        lines += page.paragraph("{} was {}.".format(retired["credential_id"], retired["how"]), "  ")
    for warning in target.get("warnings", []):
        lines += page.paragraph(_sentence(warning), "  ", "  " + page.paint("Warning: ", YELLOW))
    if "error" in target:
        lines += error(target["error"], page, "  ")
    if outcome == "not_due":
        again = command("rotate", TARGETS=name, FORCE="true")
        lines += page.paragraph(f"The credentials are current and not due yet. To rotate anyway: `{again}`", "  ")
    if outcome == "deferred":
        alone = command("rotate", TARGETS=name)
        lines += page.paragraph(f"Too little time was left for this target. To rotate it alone: `{alone}`", "  ")
    if outcome == "left_to_secrets_manager":
        rotate = command.rotate_secret(target)
        lines += page.paragraph(f"Secrets Manager rotates this target. To have it do so now: `{rotate}`", "  ")
    return lines
