"""Revokes leaked credentials: shows what a dry run says, asks, and shows the evidence."""

import sys

import answers
from page import BOLD, GREEN, RED, YELLOW

STATES = {"dead": GREEN, "ended": YELLOW, "alive": RED, "would_end": YELLOW}
SENTENCES = {
    "dead": "is dead",
    "ended": "was ended, but nothing has proven yet that it is refused",
    "alive": "still works",
    "would_end": "would be ended",
}


def render(answer, page, now, command):
    """The report, and below each target what became of the credentials and what is left to do."""
    page, lines = page.at_most(answers.WIDEST), answers.report(answer | {"dry_run": False}, page, now, command)
    for target in answer["targets"]:
        lines += _evidence(target, target.get("revocation", {}), page)
    return lines + answers.dry_run(answer)


def _evidence(target, revocation, page):
    lines = [page.paint(target["name"], BOLD) + ":"] if revocation else []
    for entry in revocation.get("revoked", []):
        lines += page.paragraph(_entry(entry, page), "    ", "  ")
    for key in revocation.get("foreign_keys", []):
        text = "{} belongs to the same IAM user, and this function did not create it. It was not touched."
        lines += page.paragraph(text.format(key), "    ", "  ")
    for left in revocation.get("remaining", []):
        lines += page.paragraph("{}:".format(left["what"]), "    ", "  " + page.paint("Left to do: ", YELLOW))
        # On a line of its own, to be copied.
        lines += ["", left["command"], ""]
    return lines


def _entry(entry, page):
    state = page.paint(SENTENCES[entry["state"]], STATES[entry["state"]])
    text = "{} {}".format(entry["credential_id"], state)
    if "evidence" in entry:
        proof = entry["evidence"]
        service = answers.SERVICES.get(proof["service"], proof["service"])
        text += ": {} answered {} to {} at {}".format(service, proof["answer"], proof["call"], proof["at"])
    return text + "."


def is_confirmed(names, typed):
    """Whether somebody has typed the names of the targets, or yes."""
    return typed.strip().lower() == "yes" or [name.strip() for name in typed.split(",")] == names


def confirm(names):
    """Asks whether to revoke. Without a terminal, nobody can answer."""
    if not sys.stdin.isatty():
        sys.exit("Nothing was revoked. To revoke without the question, add YES=true.")
    accepted = " or ".join(["yes", *([",".join(names)] if names else [])])
    question = "\nTo revoke these credentials, type {}. Anything else changes nothing: ".format(accepted)
    try:
        typed = input(question)
    except (EOFError, KeyboardInterrupt):
        typed = ""
        print()
    if not is_confirmed(names, typed):
        sys.exit("Nothing was revoked.")


def run(invoke, show, names, fields):
    """`invoke` sends the event with these fields, and `show` prints its answer. Returns whether all is well."""
    fields = list(fields)
    is_confirmed_already = "yes" in fields
    fields = [field for field in fields if field != "yes"]
    if not is_confirmed_already and "dry_run" not in fields:
        answer, failed = invoke([*fields, "dry_run"])
        show(answer)
        # A forced revocation is also for the case in which the dry run fails, because that needs Braintrust.
        if failed and "force" not in fields:
            return False
        confirm(names)
    answer, failed = invoke(fields)
    show(answer)
    return is_done(answer, failed)


def is_done(answer, failed):
    """Whether the credentials are dead, or a dry run says that they would be."""
    outcomes = [target["outcome"] for target in answer["targets"]] + list(answer.get("left_out", {}))
    return not failed and "replaced" not in outcomes
