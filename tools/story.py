"""Tells what `make run` did: what Braintrust held before, the rotation, and what Braintrust holds now."""

import sys
from datetime import UTC, datetime
from itertools import groupby

import answers
from breakage import breakable
from goals import command_for
from local_rotation import TRIGGERS, call_model
from page import BOLD, GREEN, RED
from support.upstream import form
from terminal import page

WHAT_BREAKS = {"trust": "the role now refuses the function", "bedrock": "the IAM user may no longer call Bedrock"}

SHORT_TERM_API_KEY = "Bearer bedrock-api-key-"


def tell(stack, ai_secret, outputs, trigger, where=""):
    """Rotates, and describes it while it happens. Exits if the function fails. `where` follows the provider's name."""
    paper = page()
    print("", *provider("Before", call_model(stack, ai_secret), paper, "which expired long ago", where), "", sep="\n")
    invocations = list(TRIGGERS[trigger](stack, outputs))
    stop_at_failure(invocations, paper)
    print(*the_rotation(invocations, paper, datetime.now(UTC)), "", sep="\n")
    after, life = call_model(stack, ai_secret), lifetime(invocations[-1].report, datetime.now(UTC))
    print(*provider("After", after, paper, life, where), "", sep="\n")
    print(*try_next(outputs, paper), sep="\n", flush=True)


def stop_at_failure(invocations, page):
    for invocation in invocations:
        if invocation.failed:
            is_report = isinstance(invocation.report, dict)
            told = (
                answers.report(invocation.report, page, datetime.now(UTC), command_for(""))
                if is_report
                else [invocation.report]
            )
            sys.exit("\n".join([page.paint(f"{invocation.name} failed.", RED), *told]))


def provider(title, call, page, which, where=""):
    """What Braintrust holds, and whether a model can be called with it."""
    result = page.paint("works", GREEN) if call.works else f"{page.paint('refused', RED)} ({call.refusal})"
    return [
        page.paint(title, BOLD),
        *page.paragraph(f'Braintrust\'s AI provider "AWS Bedrock"{where} holds {call.credential}, {which}.', "  "),
        *page.paragraph(f"A call to a model with it: {result}", "  "),
    ]


def the_rotation(invocations, page, now):
    """What the function did, and what it reported."""
    lines = [page.paint("The rotation", BOLD)]
    for text in acts(invocations[0].calls):
        lines += page.paragraph(text, "    ", "  - ")
    for text, same in groupby(invocations, lambda invocation: outcome(invocation, now)):
        names = ", ".join(f"{invocation.name} ({invocation.milliseconds:.0f} ms)" for invocation in same)
        lines += page.paragraph(f"{names}: {text}", "  ")
    return lines


def lifetime(report, now):
    [target] = report["targets"]
    if "expires_at" in target:
        return f"which {answers.expiry(target['expires_at'], now)}"
    return "which does not expire: the function replaces it by its age"


def acts(calls):
    """The calls that matter, as sentences in the order of the calls, without repetitions."""
    return list(dict.fromkeys(filter(None, (act for call in calls for act in (_signing(call), _act(call))))))


def _signing(call):
    """A short-term API key is made without a call to AWS, so the first call that is made with it shows it."""
    if call.headers.get("authorization", "").startswith(SHORT_TERM_API_KEY):
        return "signed a short-term API key with the role's session"
    return None


def _act(call):
    match call.call:
        case "sts:AssumeRole":
            return f"assumed the role {form(call)['RoleArn']}"
        case "iam:CreateAccessKey":
            return f"created an access key for the IAM user {form(call)['UserName']}"
        case "iam:CreateServiceSpecificCredential":
            return f"created a Bedrock API key for the IAM user {form(call)['UserName']}"
        case "bedrock:ListFoundationModels":
            return "proved that Bedrock accepts the new credentials"
        case "PATCH /v1/ai_secret/{id}" | "PATCH /v1/env_var/{id}":
            return "wrote them into Braintrust in one request, whose answer shows that they arrived"
        case "POST /v1/proxy/chat/completions":
            return "had Braintrust call a model with them"
        case "secretsmanager:UpdateSecretVersionStage" if b'"AWSCURRENT"' in call.body:
            return "made them AWSCURRENT in the secret that keeps a copy"
    return None


def outcome(invocation, now):
    """What the function reported about its only target."""
    [target] = invocation.report["targets"]
    facts = [answers.outcome_words(target), target.get("credential_id")]
    facts += [answers.expiry(target["expires_at"], now)] if "expires_at" in target else []
    return ", ".join(filter(None, facts))


def try_next(outputs, page):
    """The tour: break something, have it found, and mend it."""
    what = breakable(outputs)[0]
    tour = [(f"make break WHAT={what}", WHAT_BREAKS[what]), ("make doctor", "finds that, and says how to fix it")]
    tour += [("make mend", "mends it: make doctor finds nothing more")]
    width = max(len(command) for command, _ in tour)
    lines = [page.paint("Try next", BOLD), *(f"  {command:<{width}}  # {comment}" for command, comment in tour)]
    more = "The local stack runs for another hour, also for make status, make inventory, make rotate, "
    more += "make rollback, and make revoke TARGETS=default. make stop ends it."
    return [*lines, "", *page.paragraph(more)]
