#!/usr/bin/env python3
"""Deploys bedrock-braintrust-rotator into your AWS account, updates it, and deletes it.

It needs Python 3.9 or newer and the AWS CLI, version 1 or 2, with credentials that may deploy. Without options, it asks
six questions at most and keeps the answers in deploy/<stack>.yaml, all but the API key. That file is also the input
without questions: edit it, and give it to --config.

examples:
  python3 deploy.py                                             asks, deploys, rotates, and checks
  python3 deploy.py --stack rotator-eu --region eu-central-1    deploys a second stack
  python3 deploy.py --config deploy/rotator-eu.yaml             deploys what the file says, without questions (CI)
  python3 deploy.py --config deploy/fleet.yaml --targets fleet.json   the same, with a list of targets in S3
  python3 deploy.py --stack fleet --targets fleet.json          replaces that list, and leaves the stack as it is
  python3 deploy.py --stack rotator-eu --delete                 deletes all but the logs, after asking

exit status: 0 if it is deployed and rotates; 1 if nothing was deployed; 2 if it is deployed, but something is wrong
"""

import argparse
import difflib
import fnmatch
import getpass
import hashlib
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

NAME = "bedrock-braintrust-rotator"
ARCHITECTURES = ("x86_64", "arm64")
SET_HERE = ("CodeKey",)
OWN_KEYS = ("Region", "Tags")
# The parameters by which a stack of this template is recognized, of whatever version.
OF_EVERY_VERSION = {"BraintrustApiKeySecretArn", "BraintrustApiUrl"}
REGION = r"[a-z]{2,}(-[a-z]+)+-[0-9]+"
UUID = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
NUMBER = r"-?[0-9]+(\.[0-9]+)?"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
STACK_NAME = r"[A-Za-z][A-Za-z0-9-]{0,127}"
# Giving one of a pair empties the other, which may be set in the deployed stack. The template's rules forbid both.
PAIRS = [
    ("BraintrustApiKey", "BraintrustApiKeySecretArn"),
    ("AiSecretId", "AiSecretName"),
    ("AiSecretId", "BraintrustOrgName"),
    ("AlarmEmail", "AlarmTopicArn"),
    ("Targets", "TargetsSecretArn"),
    ("Targets", "TargetsBucket"),
    ("TargetsSecretArn", "TargetsBucket"),
]
# Dollars a month, list prices of us-east-1. The rest (invocations, logs, the queue, the topic) stays below 0.05.
PRICES = {"AWS::SecretsManager::Secret": 0.40, "AWS::CloudWatch::Alarm": 0.10, "AWS::KMS::Key": 1.00}
DASHBOARD_PRICE, METRIC_PRICE, METRICS_PER_TARGET = 3.00, 0.30, 5
# Lambda must leave this much concurrency unreserved in every account.
MUST_STAY_UNRESERVED = 100
# The policy that the action revoke writes on the stack's Bedrock role.
REVOCATION = "AWSRevokeOlderSessions"
# What the summary calls each type of resource. Other types have CloudFormation's name.
RESOURCE_NAMES = {
    "AWS::CloudWatch::Alarm": "alarm",
    "AWS::CloudWatch::Dashboard": "dashboard",
    "AWS::Events::Rule": "EventBridge rule",
    "AWS::IAM::ManagedPolicy": "IAM policy",
    "AWS::IAM::Policy": "IAM policy",
    "AWS::IAM::Role": "IAM role",
    "AWS::IAM::User": "IAM user",
    "AWS::Lambda::EventInvokeConfig": "Lambda retry setting",
    "AWS::Lambda::Function": "Lambda function",
    "AWS::Lambda::Permission": "Lambda permission",
    "AWS::Logs::LogGroup": "log group",
    "AWS::SNS::Subscription": "subscription",
    "AWS::SNS::Topic": "topic",
    "AWS::SNS::TopicPolicy": "topic policy",
    "AWS::SQS::Queue": "queue",
    "AWS::SQS::QueuePolicy": "queue policy",
    "AWS::SecretsManager::RotationSchedule": "rotation schedule",
    "AWS::SecretsManager::Secret": "secret",
}
DOMAINS = {
    "aws": ("amazonaws.com", "console.aws.amazon.com"),
    "aws-cn": ("amazonaws.com.cn", "console.amazonaws.cn"),
    "aws-us-gov": ("amazonaws.com", "console.amazonaws-us-gov.com"),
    "aws-eusc": ("amazonaws.eu", "console.amazonaws-eusc.eu"),
}
# How many mistakes in a list of targets are shown, and how many targets are named, in a line or in an event.
MAX_MISTAKES, MAX_NAMES = 10, 10
# Security: the values of these fields aren't shown, because somebody may have written a secret there.
NOT_SHOWN = ("secret_id", "api_key_secret_id", "external_id", "api_url")
API_KEY = "holds what looks like an API key. Replace that key now, because it is no longer secret"
UUID = r"[0-9A-Fa-f]{8}(-?[0-9A-Fa-f]{4}){3}-?[0-9A-Fa-f]{12}"
SECRET_FIELDS = {"StagedSecretArns": "secret_id", "ApiKeySecretArns": "api_key_secret_id"}
HOW_TO_MAKE_A_PROVIDER = """\
  The key sees no provider for Amazon Bedrock. In Braintrust, open Settings, AI providers, and add AWS Bedrock. Any
  credentials will do, because the first rotation replaces them. Save it, and press Enter here."""
NO_CREDENTIALS = (
    "Unable to locate credentials",
    "could not be found",
    "SSO",
    "expired",
    "aws login",
    "Unable to parse config",
)
CREDENTIAL_CODES = (
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
)


class Stop(Exception):
    """Ends the program. With status 1, nothing was deployed (or deleted), and the message says so."""

    def __init__(self, message, status=1):
        super().__init__(message)
        self.status = status


class WrongAnswer(Exception):
    """What is wrong with an answer, what was found, and what is accepted. The question is asked again."""


# The config file: a subset of YAML, with one `Key: value` in a line


def parse_config(text, name):
    """The values by key, as text, each with the number of its line."""
    found, mistakes = {}, []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        place = f"{name}, line {number}"
        parts = re.fullmatch(r"([A-Za-z][A-Za-z0-9]*):(?:\s+(.*))?", line.rstrip())
        if not parts:
            # Security: neither here nor below is the text repeated, because it may be an API key.
            mistakes.append(f"{place}: A line must be `Key: value`, a comment, or empty.")
            continue
        key, value = parts[1], (parts[2] or "").strip()
        if key in found:
            mistakes.append(f"{place}: {key} is there twice; line {found[key][1]} has it too. Remove one of them.")
            continue
        found[key] = ("", number)
        try:
            found[key] = (parse_value(value, f"{place}: {key}"), number)
        except Stop as mistake:
            mistakes.append(str(mistake))
    if mistakes:
        raise Stop("\n".join(mistakes))
    return found


def parse_value(text, place):
    if text.startswith('"'):
        try:
            value, end = json.JSONDecoder().raw_decode(text)
        except ValueError as error:
            raise Stop(f'{place}: the text in quotes is not valid JSON ({error}). Write \\" and \\\\ for " and \\.')
        rest = text[end:]
    elif text.startswith("'"):
        quoted = re.match(r"'((?:[^']|'')*)'", text)
        if not quoted:
            raise Stop(f"{place}: the closing ' is missing. Write '' for a ' inside.")
        value, rest = quoted[1].replace("''", "'"), text[quoted.end() :]
    else:
        value, rest = re.split(r"(?:^|\s+)#", text, maxsplit=1)[0], ""
        if re.match(r"[\[\]{}&*!|>%@`]|[-?:](\s|$)", value) or re.search(r":(\s|$)", value):
            raise Stop(f"{place}: A value must be a single text. Put it in 'quotes'.")
        value = "" if value in ("~", "null") else value
    if not re.fullmatch(r"\s*(#.*)?", rest):
        raise Stop(f"{place}: Only a comment may follow the closing quote.")
    return value


def looks_like_an_api_key(text):
    return text.strip().startswith(("sk-", "bt-st-"))


def shown(text):
    return json.dumps(printable(text.strip()[:60]), ensure_ascii=False)


def printable(value):
    """The text, or all texts in a value of JSON, without characters that control a terminal.

    Whoever may name a provider in Braintrust could otherwise write what they like to the screen.
    """
    if isinstance(value, dict):
        return {printable(key): printable(one) for key, one in value.items()}
    if isinstance(value, list):
        return [printable(one) for one in value]
    return "".join(c if c.isprintable() else "\ufffd" for c in value) if isinstance(value, str) else value


def printable_lines(text):
    return "\n".join(map(printable, text.splitlines()))


def format_value(value):
    plain = re.fullmatch(r"[A-Za-z0-9/.][A-Za-z0-9 /.:@_+=()*,-]*", value) and not re.search(r":(\s|$)", value)
    return value if plain and value == value.strip() and value != "null" else json.dumps(value, ensure_ascii=False)


def blank_config(template, stack):
    """The file with every parameter commented out, below its description and in the template's groups."""
    lines = [
        f"# The parameters of the stack {stack}. Deploy them with",
        f"#     python3 deploy.py --stack {stack} --config deploy/{stack}.yaml",
        "# A parameter that isn't here keeps its value in a stack that exists, and has its default in a new one.",
        '# To go back to a default, write it, such as AlarmEmail: "".',
        "#Region: us-east-1",
        "# Tags for the stack and everything in it, such as team=platform, cost-center=42",
        '#Tags: ""',
    ]
    for label, names in template.groups():
        lines += ["", f"# --- {label} ---"]
        for name in names:
            declared = template.parameters[name]
            lines += ["", *comment(declared.get("Description", ""))]
            if declared.get("NoEcho"):
                lines += [f"# This isn't kept here. Set it with the environment variable {variable_of(name)}."]
            lines += [f"#{name}: {format_value(str(declared.get('Default', '')))}"]
    return "\n".join(lines) + "\n"


def comment(text, width=110):
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += f" {word}"
    return [f"#{line}" for line in lines]


def updated_config(text, values):
    """The text with these values: in the place of an old value, or of the line that is commented out."""
    for key, value in values.items():
        line = f"{key}: {format_value(value)}"
        for pattern in (rf"^{key}:.*$", rf"^#{key}:.*$"):
            text, replaced = re.subn(pattern, lambda _, line=line: line, text, count=1, flags=re.MULTILINE)
            if replaced:
                break
        else:
            text += line + "\n"
    return text


def write_config(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)


def variable_of(parameter):
    """The environment variable of a parameter that is a secret. HTTPS_PROXY is that of this machine."""
    if parameter == "HttpsProxy":
        return "FUNCTION_HTTPS_PROXY"
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", parameter).upper()


def tags_of(text):
    """The tags in `key=value, key=value`, as CloudFormation takes them."""
    tags = [part.strip().partition("=") for part in text.split(",") if part.strip()]
    for key, equals, value in tags:
        if not key.strip() or not equals:
            raise Stop(f"Tags: found {shown(key)}. Write key=value, separated by commas.")
    return [{"Key": key.strip(), "Value": value.strip()} for key, _, value in tags]


# The template: what values it accepts, what it would create, and what that costs


class Template:
    def __init__(self, body):
        self.parameters = body["Parameters"]
        self.conditions = body.get("Conditions", {})
        self.rules = body.get("Rules", {})
        self.resources = body["Resources"]
        self._interface = body.get("Metadata", {}).get("AWS::CloudFormation::Interface", {})

    def defaults(self):
        return {name: str(declared.get("Default", "")) for name, declared in self.parameters.items()}

    def groups(self):
        """The labels of the groups of parameters, and the names in each."""
        grouped = set()
        for group in self._interface.get("ParameterGroups", []):
            names = [name for name in group["Parameters"] if name in self.parameters and name not in SET_HERE]
            grouped.update(names)
            yield group["Label"]["default"], names
        rest = [name for name in self.parameters if name not in grouped and name not in SET_HERE]
        if rest:
            yield "Other", rest

    def problem_with(self, name, value):
        """What is wrong with a parameter's value, or None."""
        declared = self.parameters[name]
        is_list = declared["Type"] == "CommaDelimitedList"
        for part in [part.strip() for part in value.split(",")] if is_list else [value]:
            problem = self._problem_with_one(declared, part)
            if not problem and name == "ScheduleExpression":
                problem = problem_with_rate(part)
            if problem:
                found = "" if declared.get("NoEcho") else f"found {shown(part)}, but "
                return f"{found}it {problem}"
        return None

    def _problem_with_one(self, declared, value):
        accepted = [str(one) for one in declared.get("AllowedValues", [])]
        if accepted and value not in accepted:
            return f"must be one of {', '.join(accepted)}{nearest(value, accepted)}"
        if declared["Type"] == "Number":
            if not re.fullmatch(NUMBER, value):
                return "must be a number"
            least, most = declared.get("MinValue"), declared.get("MaxValue")
            if least is not None and float(value) < float(least):
                return f"must be {least} or more"
            if most is not None and float(value) > float(most):
                return f"must be {most} or less"
        pattern = declared.get("AllowedPattern")
        if pattern and not re.fullmatch(pattern, value):
            return declared.get("ConstraintDescription", f"must match {pattern}")
        return None

    def broken_rules(self, values):
        """What the template's rules say against these values taken together."""
        for rule in self.rules.values():
            if self.evaluate(rule.get("RuleCondition", True), values):
                for assertion in rule["Assertions"]:
                    if not self.evaluate(assertion["Assert"], values):
                        yield assertion["AssertDescription"]

    def created(self, values):
        """The resources that a stack with these values has: their types by name."""
        return {
            name: resource["Type"]
            for name, resource in self.resources.items()
            if "Condition" not in resource or self.evaluate({"Condition": resource["Condition"]}, values)
        }

    def evaluate(self, expression, values):
        if isinstance(expression, list):
            return [self.evaluate(part, values) for part in expression]
        if not isinstance(expression, dict):
            return expression
        [(function, argument)] = expression.items()
        if function == "Condition":
            return self.evaluate(self.conditions[argument], values)
        if function == "Ref":
            is_list = self.parameters.get(argument, {}).get("Type") == "CommaDelimitedList"
            return values[argument].split(",") if is_list else values[argument]
        return FUNCTIONS[function](*self.evaluate(argument, values))

    def capabilities(self):
        named = ("RoleName", "UserName", "ManagedPolicyName", "GroupName")
        properties = [resource.get("Properties", {}) for resource in self.resources.values()]
        is_named = any(name in given for given in properties for name in named)
        return ["CAPABILITY_NAMED_IAM" if is_named else "CAPABILITY_IAM"]


FUNCTIONS = {
    "Fn::Equals": lambda one, other: str(one) == str(other),
    "Fn::Not": lambda value: not value,
    "Fn::And": lambda *values: all(values),
    "Fn::Or": lambda *values: any(values),
    "Fn::Join": lambda separator, parts: separator.join(parts),
    "Fn::Select": lambda index, parts: parts[int(index)],
    "Fn::Split": lambda separator, text: text.split(separator),
    "Fn::Contains": lambda accepted, value: str(value) in map(str, accepted),
    "Fn::EachMemberEquals": lambda members, value: all(str(member) == str(value) for member in members),
    "Fn::EachMemberIn": lambda members, accepted: set(map(str, members)) <= set(map(str, accepted)),
}


def nearest(name, names):
    if all(re.fullmatch(NUMBER, one) for one in (name, *names)):
        return f". Did you mean {min(names, key=lambda one: abs(float(one) - float(name)))}?"
    lower = {candidate.lower(): candidate for candidate in names}
    found = difflib.get_close_matches(name.lower(), lower, 1, 0.6)
    return f". Did you mean {lower[found[0]]}?" if found else ""


def problem_with_rate(expression):
    """EventBridge wants the singular after 1, and only there."""
    if not expression.startswith("rate("):
        return None
    parts = re.fullmatch(r"rate\(([1-9][0-9]*) (minute|hour|day)(s?)\)", expression)
    if not parts:
        return "must be like rate(20 minutes) or rate(1 hour)"
    is_one = parts[1] == "1"
    return None if is_one == (parts[3] == "") else f"must be rate({parts[1]} {parts[2]}{'' if is_one else 's'})"


def ended(sentence):
    return sentence if sentence.endswith("?") else f"{sentence}."


def targets_in(values):
    """How many targets the function has, or None if the list is in a secret or in S3."""
    if values.get("TargetsSecretArn") or values.get("TargetsBucket"):
        return None
    try:
        return len(json.loads(values["Targets"])) if values.get("Targets") else 1
    except ValueError:
        raise Stop("Targets is not valid JSON. It must be an array of targets: [{...}, ...]")


def monthly_cost(types, targets):
    """Dollars for a month, without the dashboard; `types` are those of the stack's resources."""
    fixed = sum(PRICES.get(type, 0) for type in types)
    return fixed + METRIC_PRICE * METRICS_PER_TARGET * (1 + targets)


def describe_cost(types, targets):
    types = list(types)
    cost = f"${monthly_cost(types, targets or 0):.2f} a month"
    if targets is None:
        cost += f", ${METRIC_PRICE * METRICS_PER_TARGET:.2f} more for each target"
    if "AWS::CloudWatch::Dashboard" in types:
        cost += f", and ${DASHBOARD_PRICE:.2f} for the dashboard if the account has three already"
    return cost


def describe_proof(model, is_staged):
    """What EndToEndModelId does and costs."""
    then = (
        "the previous credentials are restored"
        if is_staged
        else "the run fails, and nothing can be restored without StageCredentials: true"
    )
    request = f"after each rotation, one token of {model} through Braintrust, at its price"
    return f"{request}; if Bedrock refuses the credentials, {then}"


def describe_resources(types):
    """Such as `6 alarms, 1 topic`, the most numerous first."""
    names = [RESOURCE_NAMES.get(type, type) for type in types]
    counted = sorted(((names.count(name), name) for name in set(names)), key=lambda pair: (-pair[0], pair[1]))
    return ", ".join(f"{count} {name if count == 1 else plural(name)}" for count, name in counted)


def wrapped(label, text):
    """A line that fits the terminal and has at most 100 characters, and more below it if the text is longer."""
    width = min(100, shutil.get_terminal_size((100, 24)).columns)
    # An ARN or a date that is broken can't be copied.
    whole = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.fill(text, width, initial_indent=label, subsequent_indent=" " * len(label), **whole)


def plural(name):
    return re.sub("y$", "ies", name) if name.endswith("y") else f"{name}s"


def chosen_values(template, config, secrets, name):
    """The parameters that the config and the environment give, checked one by one; nothing is deployed before that."""
    mistakes = [mistake_in(template, key, *found, name) for key, found in config.items()]
    for key, value in secrets.items():
        problem = template.problem_with(key, value)
        mistakes.append(problem and f"The environment variable {variable_of(key)}: {ended(problem)}")
    if any(mistakes):
        raise Stop("\n".join(filter(None, mistakes)))
    return {**{key: value for key, (value, _) in config.items() if key not in OWN_KEYS}, **secrets}


def mistake_in(template, key, value, line, name):
    """What is wrong with a line of the config, or None."""
    place = f"{name}, line {line}: {key}"
    accepted = [key for key in template.parameters if key not in SET_HERE] + list(OWN_KEYS)
    if key not in accepted:
        reason = "is set by deploy.py itself" if key in SET_HERE else "is not a parameter"
        return f"{place} {reason}{nearest(key, accepted) or '. Remove the line.'}"
    if key in OWN_KEYS:
        return mistake_in_own_key(key, value, place)
    if template.parameters[key].get("NoEcho") and is_secret(value):
        return f"{place} is a secret. Remove it, and set the environment variable {variable_of(key)} instead."
    problem = template.problem_with(key, value)
    return problem and f"{place}: {ended(problem)}"


def mistake_in_own_key(key, value, place):
    if key == "Region" and not re.fullmatch(REGION, value):
        return f"{place}: found {shown(value)}, but it must be a region, such as us-east-1."
    if key == "Tags":
        try:
            tags_of(value)
        except Stop as mistake:
            return f"{place.rpartition(': ')[0]}: {mistake}"
    return None


def is_secret(value):
    """Whether a value that isn't to be shown may be a secret. A proxy's URL without a password isn't one."""
    return bool(value) and not re.fullmatch(r"https?://[^@\s]+", value)


def secrets_in(environment, template):
    names = [name for name, declared in template.parameters.items() if declared.get("NoEcho")]
    return {name: environment[variable_of(name)] for name in names if environment.get(variable_of(name))}


def with_other_of_pairs_emptied(given, deployed):
    values = dict(given)
    # The project's name may need an organization, even if the provider is given by its ID.
    has_project = given.get("BraintrustProject", deployed.get("BraintrustProject"))
    for one, other in PAIRS:
        if other == "BraintrustOrgName" and has_project:
            continue
        for set_one, unset in ((one, other), (other, one)):
            if given.get(set_one) and unset not in given and deployed.get(unset):
                values[unset] = ""
    return values


def can_reserve_concurrency(settings):
    return settings["AccountLimit"]["UnreservedConcurrentExecutions"] - 1 >= MUST_STAY_UNRESERVED


# The list of targets in S3


class TargetList:
    """The file for --targets, as it was when it was checked. Some rules are checked by the function alone."""

    def __init__(self, path, schema):
        self.path = Path(path)
        try:
            text = self.path.read_bytes().decode("utf-8-sig")
            self.targets = json.loads(text, object_pairs_hook=without_duplicates, parse_constant=refuse_constant)
        except OSError as error:
            raise Stop(f"{path} can't be read: {error.strerror}.") from None
        except (ValueError, RecursionError) as error:
            raise Stop(f"{path} can't be read as a JSON array of targets: {error}.") from None
        # Without a byte order mark, which the function refuses.
        self.bytes = text.encode()
        mistakes = [self._describe(path, problem) for path, problem in mistakes_in(self.targets, schema)]
        # Several rules can need the same field.
        mistakes = list(dict.fromkeys(mistakes))
        # The next check relies on the required fields.
        self._refuse(mistakes or list(self._what_is_used_twice()))

    def _refuse(self, mistakes):
        if mistakes:
            more = [f"and {len(mistakes) - MAX_MISTAKES} more"] if len(mistakes) > MAX_MISTAKES else []
            raise Stop("\n".join(f"{self.path}: {line}" for line in mistakes[:MAX_MISTAKES] + more))

    def _describe(self, path, problem):
        if not path:
            return f"the list {problem}."
        index, *fields = path
        field = "".join(map(part_of_path, fields)).lstrip(".")
        line = f"{named(self.targets[index], index)}{f': {field}' if field else ''} {problem}"
        return line if line.endswith("?") else f"{line}."

    def _what_is_used_twice(self):
        used = {}
        for target in self.targets:
            # Without a role, the user is in the function's own account.
            account, user = (target.get("role_arn") or "").split(":")[4:5], target.get("user_name")
            own = [("name", target["name"]), ("secret_id", target.get("secret_id"))]
            own += [("IAM user", ":".join([*account, user]) if user else None)]
            own += [("ai_secret", (one.get("id") or "").lower()) for one in target["ai_secrets"]]
            for what, value in own:
                used.setdefault((what, (value or "").strip()), []).append(target["name"])
        for (what, value), names in used.items():
            if value and len(names) > 1:
                which = f"of {shown(names[0])}" if what in NOT_SHOWN else shown(value)
                yield f"the {what} {which} is used {len(names)} times. Each target needs its own."

    def refuse_what_is_not_allowed(self, values, where):
        """Refuses targets that use what the values of the stack's parameters don't allow."""
        mistakes = []
        for parameter, used in self._used().items():
            allowed = values[parameter].split(",") + [values["BraintrustApiKeySecretArn"]] * parameter.startswith("Api")
            missing = {id: name for id, name in used.items() if not any(is_covered(id, one.strip()) for one in allowed)}
            if missing:
                first, name = next(iter(missing.items()))
                of = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
                # Security: what isn't the ARN of a secret may be the secret itself.
                arns = [id for id in missing if id.startswith("arn:") or parameter not in SECRET_FIELDS]
                first = first if first in arns else f"the secret in its {SECRET_FIELDS[parameter]}"
                wanted = ",".join(as_patterns(parameter, arns)[:3]) or "its ARN"
                mistake = f"{name} uses {first}{of}, which {parameter} doesn't allow. Add this there: {wanted}"
                mistakes.append(printable(mistake))
        tagging = [one["name"] for one in self.targets if one.get("session_tags") or one.get("source_identity")]
        if tagging and values["AllowSessionTags"] != "true":
            mistakes.append(f"{shown(tagging[0])} has session_tags or a source_identity. Write AllowSessionTags: true")
        if mistakes:
            reason = f"The stack doesn't allow everything that {self.path} uses. Change {where}:"
            raise Stop("\n".join([reason, *mistakes]))

    def _used(self):
        """What each parameter must allow, with the name of the first target that uses it."""
        used = {"RoleArns": {}, "IamUserArns": {}, "StagedSecretArns": {}, "ApiKeySecretArns": {}}
        for target in self.targets:
            keys = [one.get("api_key_secret_id") for one in target["ai_secrets"]]
            of = {
                "RoleArns": [target.get("role_arn")],
                # If a target has a role, that role manages the user, not the function's own role.
                "IamUserArns": [] if target.get("role_arn") else [target.get("user_name")],
                "StagedSecretArns": [target.get("secret_id")],
                "ApiKeySecretArns": keys,
            }
            for parameter, ids in of.items():
                for id in filter(None, ids):
                    used[parameter].setdefault(id.strip(), shown(target["name"]))
        return used

    def changes_since(self, before):
        """The names of the targets that are new or different, and of those that are gone, if `before` can be read."""
        old, new = targets_by_name(before), {target["name"]: target for target in self.targets}
        changed = [name for name in new if (old or {}).get(name) != new[name]]
        return changed, None if old is None else [name for name in old if name not in new]


class ListInS3:
    """The object from which a function reads its targets. `before` is the text that it has had until now, if any."""

    def __init__(self, aws, bucket, key, before=None):
        self.aws, self.bucket, self.key, self.before = aws, bucket, key, before
        self.url, self.file, self.etag, self.version = f"s3://{bucket}/{key}", aws.folder / "targets.json", None, None

    def _call(self, operation, *options):
        """What S3 answers, or nothing if there is no such object."""
        # The AWS CLI requires these as options if it writes a file.
        place = [f"--bucket={self.bucket}", f"--key={self.key}", f"--expected-bucket-owner={self.aws.account}"]
        try:
            return self.aws.call("s3api", operation, options=[*place, *options])
        except AwsError as error:
            if error.code in ("404", "NoSuchKey"):
                return {}
            raise

    def read(self):
        found = self._call("get-object", str(self.file))
        self.before, self.etag = self.file.read_bytes() if found else None, found.get("ETag")
        self.version = found.get("VersionId")
        return self.before

    def has_changed(self):
        """Whether somebody else has written it since. Only new versions of the AWS CLI can upload on a condition."""
        return self._call("head-object").get("ETag") != self.etag

    def put(self, text):
        # The file that was checked may have changed since, or be a pipe.
        self.file.write_bytes(text)
        self.etag = self._call("put-object", "--body", str(self.file), "--content-type", "application/json")["ETag"]


def without_duplicates(pairs):
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"the field {shown(twice)} is given twice")
    return dict(pairs)


def targets_by_name(text):
    """The targets of a list, by name, or None if it can't be read."""
    try:
        found = json.loads("[]" if text is None else text)
        is_list = isinstance(found, list) and all(isinstance(one["name"], str) for one in found)
    except (ValueError, RecursionError, TypeError, KeyError):
        return None
    return {one["name"]: one for one in found} if is_list else None


def refuse_constant(name):
    raise ValueError(f"{name} is not a number of JSON")


def listed(names):
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(printable(name[:60]) for name in names[:MAX_NAMES]) + more


def named(target, index):
    name = target.get("name") if isinstance(target, dict) else None
    return f"target {shown(name)}" if isinstance(name, str) else f"target number {index + 1}"


def part_of_path(part):
    return f"[{part}]" if isinstance(part, int) else f".{printable(part)[:60]}"


def is_covered(id, allowed):
    """Whether a parameter's ARN, which can be a pattern, covers the ARN or name of a role, user, or secret."""
    # A name is that of a user or secret in the stack's own account.
    own = allowed if id.startswith("arn:") else re.split(":secret:|:user/", allowed)[-1]
    if fnmatch.fnmatchcase(id, own):
        return True
    # Secrets Manager adds six characters to a name.
    added = fnmatch.fnmatchcase(f"{id}-AbCdEf", own) or fnmatch.fnmatchcase(own, f"{id}-??????")
    return ":secret:" in allowed and added


def as_patterns(parameter, ids):
    """The values to add to a parameter: one pattern for roles of the same name in several accounts."""
    if parameter != "RoleArns":
        return list(ids)
    by_name = {}
    for arn in ids:
        by_name.setdefault(arn.split(":role/")[-1], []).append(arn)
    return [arns[0] if len(arns) == 1 else re.sub(":[0-9]{12}:", ":*:", arns[0]) for arns in by_name.values()]


def mistakes_in(value, schema, path=()):
    """What is wrong with a value according to a JSON Schema, as pairs of a path and a problem. The schema can have the
    keywords of targets.schema.json."""
    types = schema.get("type", list(TYPES))
    types = [types] if isinstance(types, str) else types
    if not any(is_of_type(value, one) for one in types):
        accepted = " or ".join(TYPES[one] for one in types if one != "null")
        yield path, "isn't accepted here" if types == ["null"] else f"must be {accepted}"
        return
    if "const" in schema and value != schema["const"]:
        yield path, f"must be {json.dumps(schema['const'])}"
    if isinstance(value, str):
        yield from ((path, problem) for problem in problems_with_text(value, schema, *path[-1:]))
    elif isinstance(value, (int, float)) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield path, f"must be from {schema['minimum']} to {schema['maximum']}"
    elif isinstance(value, list):
        yield from mistakes_in_array(value, schema, path)
    elif isinstance(value, dict):
        yield from mistakes_in_object(value, schema, path)
    yield from mistakes_in_combination(value, schema, path)


# The names of JSON's types in messages.
TYPES = {
    "null": "null",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "array": "an array",
    "object": "an object",
}


def is_of_type(value, type):
    if isinstance(value, bool) or value is None:
        return type == {True: "boolean", False: "boolean", None: "null"}[value]
    if type == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return isinstance(value, {"number": (int, float), "string": str, "array": list, "object": dict}.get(type, ()))


def problems_with_text(text, schema, field=None):
    # JSON Schema uses JavaScript's regular expressions. Python's have no \p, and their $ ignores a last newline.
    pattern = schema.get("pattern", "").replace(r"\p{L}\p{N}", r"\w").replace("$", r"\Z")
    is_uuid = schema.get("format") != "uuid" or re.fullmatch(UUID, text.strip())
    if not (re.search(pattern, text) and is_uuid):
        if looks_like_an_api_key(text):
            yield API_KEY
            return
        found = "" if field in NOT_SHOWN else f"is {shown(text)}, which "
        expected = f"match {schema['pattern']}" if "pattern" in schema else "be a UUID"
        yield f"{found}must {expected}" if text.strip() else "must not be empty"
    if len(text) > schema.get("maxLength", len(text)):
        yield f"must have {schema['maxLength']} characters or fewer"


def mistakes_in_array(items, schema, path):
    if len(items) < schema.get("minItems", 0) or len(items) > schema.get("maxItems", len(items)):
        at_most = f", and at most {schema['maxItems']}" if "maxItems" in schema else ""
        yield path, f"must have {schema.get('minItems', 0)} or more items{at_most}"
    if schema.get("uniqueItems") and any(items.count(item) > 1 for item in items):
        yield path, "has an item twice"
    for index, item in enumerate(items):
        yield from mistakes_in(item, schema.get("items", {}), (*path, index))


def mistakes_in_object(fields, schema, path):
    known, others = schema.get("properties", {}), schema.get("additionalProperties", {})
    for name in schema.get("required", ()):
        if name not in fields:
            yield path, f"needs the field {name}"
    if len(fields) > schema.get("maxProperties", len(fields)):
        yield path, f"must have {schema['maxProperties']} fields or fewer"
    for name, value in fields.items():
        if name not in known and others is False:
            yield (*path, name), f"is unknown{nearest(name, list(known))}"
            continue
        for _, problem in mistakes_in(name, schema.get("propertyNames", {})):
            yield (*path, name), f"has a name that {problem}"
        yield from mistakes_in(value, known.get(name, others if isinstance(others, dict) else {}), (*path, name))


def mistakes_in_combination(value, schema, path):
    for part in schema.get("allOf", ()):
        yield from mistakes_in(value, part, path)
    for keyword in ("anyOf", "oneOf"):
        forms = schema.get(keyword, ())
        fitting = sum(not any(mistakes_in(value, form, path)) for form in forms)
        if forms and not (fitting == 1 or (fitting and keyword == "anyOf")):
            yield path, describe_forms(forms, ", and only one of them" if keyword == "oneOf" else "")
    if "not" in schema and not any(mistakes_in(value, schema["not"], path)):
        is_api_key = isinstance(value, str) and looks_like_an_api_key(value)
        yield path, "is missing" if value is None else API_KEY if is_api_key else "has a value that isn't accepted here"
    if "if" in schema and not any(mistakes_in(value, schema["if"], path)):
        yield from mistakes_in(value, schema["then"], path)


def describe_forms(forms, how_many):
    accepted = [json.dumps(form["const"]) for form in forms if "const" in form]
    fields = [name for form in forms for name in form.get("required", ())]
    if accepted:
        return f"must be one of {', '.join(accepted)}"
    return f"needs {' or '.join(fields)}{how_many}" if fields else "has none of the accepted forms"


# The AWS CLI


class AwsError(Exception):
    def __init__(self, code, message):
        super().__init__(printable_lines(f"{code}: {message}" if code else message))
        self.code = code
        self.message = message

    def is_about_credentials(self):
        return self.code in CREDENTIAL_CODES or (not self.code and any(part in self.message for part in NO_CREDENTIALS))


class Aws:
    """Runs the AWS CLI. What it is asked is in files that only this user can read, never on a command line."""

    def __init__(self, folder, profile=None):
        self.folder = Path(folder)
        self.program = shutil.which("aws")
        if not self.program:
            raise Stop(
                "The AWS CLI is missing: there is no `aws` in PATH. Install it: "
                "https://docs.aws.amazon.com/cli/latest/userguide/getting-started-install.html"
            )
        self.common = ["--output", "json"] + (["--profile", profile] if profile else [])
        self.region = self.account = self.caller = self.partition = None

    def use_region(self, region):
        """Signs in there, and finds out who the caller is."""
        self.region = region
        identity = self.call("sts", "get-caller-identity")
        self.account, self.caller = identity["Account"], identity["Arn"]
        self.partition = self.caller.split(":")[1]

    def call(self, service, operation, request=None, options=(), variables=None):
        command = [self.program, service, operation, *self.common, *options]
        command += ["--region", self.region] if self.region else []
        path = self.folder / "request.json"
        try:
            if request is not None:
                write_config(path, json.dumps(request))
                command += ["--cli-input-json", f"file://{path}"]
            done = subprocess.run(
                command,
                env={**os.environ, "AWS_PAGER": "", "AWS_CLI_AUTO_PROMPT": "off", **(variables or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
            )
        finally:
            path.unlink(missing_ok=True)
        if done.returncode:
            raise aws_error(done.stderr)
        return json.loads(done.stdout) if done.stdout.strip().startswith(("{", "[")) else done.stdout.strip()

    def configured_region(self):
        for variable in ("AWS_REGION", "AWS_DEFAULT_REGION"):
            if os.environ.get(variable):
                return os.environ[variable]
        try:
            return self.call("configure", "get", options=("region",)) or None
        except AwsError:
            return None

    def invoke(self, function, event):
        """The answer, and whether it is an error. The report in an error's message is returned instead of it."""
        asked, answered = self.folder / "event.json", self.folder / "answer.json"
        asked.write_text(json.dumps(event))
        # A rotation may take 15 minutes, and a second attempt would be a second rotation.
        options = ["--function-name", function, "--payload", f"fileb://{asked}", "--cli-read-timeout", "910"]
        done = self.call("lambda", "invoke", options=[*options, str(answered)], variables={"AWS_MAX_ATTEMPTS": "1"})
        answer = json.loads(answered.read_text())
        if "FunctionError" not in done:
            return printable(answer), False
        try:
            return printable(json.loads(answer["errorMessage"])), True
        except (ValueError, KeyError, TypeError):
            return printable(answer.get("errorMessage", answer)), True


def aws_error(text):
    text = text.strip()
    known = re.search(
        r"An error occurred \(([^)]+)\) when calling the \S+ operation(?: \([^)]*\))?: (.*)", text, re.DOTALL
    )
    return AwsError(known[1], known[2].strip()) if known else AwsError("", text)


def credentials_stop(error):
    return Stop(
        f"AWS doesn't accept your credentials: {error}\nSign in, such as by `aws sso login` or `aws configure`, or "
        "name a profile with --profile. Then start deploy.py again."
    )


# Braintrust


class Braintrust:
    def __init__(self, url, key=None):
        self.url, self.key = url, key
        is_local = urllib.parse.urlsplit(url).hostname in LOOPBACK
        context = ssl.create_default_context()
        for variable in ("AWS_CA_BUNDLE", "BRAINTRUST_CA_BUNDLE"):
            if os.path.isfile(os.environ.get(variable, "")):
                context.load_verify_locations(os.environ[variable])
        handlers = [urllib.request.HTTPSHandler(context=context), NoRedirects()]
        handlers += [urllib.request.ProxyHandler({})] if is_local else []
        self._opener = urllib.request.build_opener(*handlers)

    def get(self, path, **query):
        headers = {"User-Agent": f"{NAME}-deploy", "Accept": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(f"{self.url}{path}?{urllib.parse.urlencode(query)}", headers=headers)
        try:
            with self._opener.open(request, timeout=20) as answer:
                return printable(json.loads(answer.read(10_000_000)))
        except urllib.error.HTTPError as error:
            raise BraintrustError(error.code, error.headers.get("Content-Type", "")) from None
        except ValueError:
            raise BraintrustError(200, "other than JSON") from None
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise WrongAnswer(
                f"{self.url} can't be reached: {reason}. Check the URL, and HTTPS_PROXY if you are behind a proxy. If "
                "only the function's network reaches it, write the parameters into a file, and give it to --config."
            ) from None

    def providers(self):
        """All Bedrock providers that the key sees, oldest first."""
        found, query = {}, {"ai_secret_type": "bedrock", "limit": 100}
        while True:
            page = self.get("/v1/ai_secret", **query).get("objects", [])
            new = [one for one in page if one["id"] not in found]
            if not new:
                return [one for one in reversed(list(found.values())) if one.get("type") == "bedrock"]
            found.update((one["id"], one) for one in new)
            query["starting_after"] = page[-1]["id"]

    def organizations(self):
        """The names of the organizations by ID; empty if the key may not list them."""
        try:
            return {one["id"]: one["name"] for one in self.get("/v1/organization").get("objects", [])}
        except BraintrustError:
            return {}


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Otherwise the API key would be sent to wherever an answer points."""

    def redirect_request(self, *_):
        return None


class BraintrustError(Exception):
    def __init__(self, status, content_type):
        # Firewalls and other servers answer with pages.
        self.is_foreign = not content_type.startswith(("application/json", "text/plain")) and content_type != ""
        super().__init__(f"status {status}{f' and {content_type}' if self.is_foreign else ''}")
        self.status = status


def is_known_host(url):
    """Whether the host is Braintrust's or this machine. A file in a folder of somebody else may name any other."""
    try:
        host = urllib.parse.urlsplit(url).hostname or ""
    except ValueError:
        return False
    return host.endswith(".braintrust.dev") or host in LOOPBACK


def check_braintrust_url(answer):
    url = re.sub(r"(/v1)?/*$", "", answer.strip())
    try:
        parts = urllib.parse.urlsplit(url)
        is_local = parts.hostname in LOOPBACK
    except ValueError:
        parts, is_local = None, False
    if not parts or not parts.hostname or parts.scheme not in (("https", "http") if is_local else ("https",)):
        raise WrongAnswer(f"Found {shown(answer)}. It must be a URL that begins with https://")
    try:
        Braintrust(url).get("/v1/ai_secret", limit=1)
    except BraintrustError as error:
        if error.status not in (400, 401, 403) or error.is_foreign:
            raise WrongAnswer(
                f"{url} isn't Braintrust's API: it answered with {error}. The URL is in Braintrust under Settings, "
                "Data plane, such as https://api.braintrust.dev"
            ) from None
    return url


def look_around(url, key):
    """The Bedrock providers that a key sees, and the names of their organizations."""
    if not key.isascii():
        raise WrongAnswer("The key has characters that no key of Braintrust has. Copy it again.")
    braintrust = Braintrust(url, key)
    try:
        return braintrust.providers(), braintrust.organizations()
    except BraintrustError as error:
        if error.status in (401, 403) and not error.is_foreign:
            raise WrongAnswer(
                f"{url} refuses the key with {error}. Create one as an organization admin under Settings, API keys, "
                "and check that it belongs to this URL."
            ) from None
        raise WrongAnswer(f"{url} answered with {error}. Try again, or check the URL.") from None


def why_not(provider):
    """Why a provider can't be kept fresh, or None."""
    auth_type = (provider.get("metadata") or {}).get("auth_type") or "iam_credentials"
    if auth_type == "assume_role":
        return "it assumes a role by itself, which needs no rotation"
    if auth_type not in ("iam_credentials", "api_key"):
        return f"its auth_type {shown(auth_type)} is unknown"
    return None


def why_not_listed(project):
    if project:
        return f"BraintrustProject is {printable(project)}. The providers of a project aren't listed here."
    return "You may not read that secret, so the providers can't be listed here."


def region_of(provider):
    """The region in which Braintrust calls Bedrock with this provider, or None if it has none that AWS could have."""
    region = (provider.get("metadata") or {}).get("region")
    return region if isinstance(region, str) and re.fullmatch(REGION, region) else None


def describe_bedrock_region(region, provider):
    """The region that the rotations write into the provider, beside the one that it has."""
    before = region_of(provider)
    if before == region:
        return f"Bedrock region: {region}, as in Braintrust"
    change = f"; Braintrust has {before}, and the first rotation changes it" if before else ""
    return f"Bedrock region: {region}{change}"


def api_key_in(secret_string):
    """The API key in a secret: the text itself, or JSON with `api_key`."""
    try:
        value = json.loads(secret_string)
    except ValueError:
        return secret_string.strip()
    return value["api_key"] if isinstance(value, dict) and isinstance(value.get("api_key"), str) else None


# The six questions


def ask(question, check, default=None, hidden=False):
    """Asks until `check` accepts the answer, and returns what `check` returns."""
    prompt = f"{question}{f' [{default}]' if default else ''}: "
    while True:
        try:
            answer = (getpass.getpass(prompt) if hidden else input(prompt)).strip()
        except EOFError:
            raise Stop("\nThe input has ended before all questions were answered.") from None
        try:
            return check(answer or default or "")
        except WrongAnswer as wrong:
            print(f"  {wrong}")


class Questions:
    def __init__(self, aws, template, stack, before):
        """`before` has the values of an earlier run by key; they are the defaults."""
        self.aws, self.template, self.stack, self.before = aws, template, stack, before
        self.answers = {}
        self.api_key = None
        self.provider = None

    def ask_region(self, region):
        default = region or self.before.get("Region") or self.aws.configured_region()
        self.answers["Region"] = ask("1. Region", self._sign_in, default)
        print(f"  Account {self.aws.account}, as {self.aws.caller}")

    def _sign_in(self, region):
        if not re.fullmatch(REGION, region):
            raise WrongAnswer(f"Found {shown(region)}. It must be a region, such as us-east-1.")
        try:
            self.aws.use_region(region)
        except AwsError as error:
            if error.is_about_credentials():
                raise credentials_stop(error) from None
            raise WrongAnswer(f"AWS doesn't answer in {region}: {error}") from None
        return region

    def ask_braintrust_url(self, deployed):
        """`deployed` is the URL that the stack uses, or None."""
        default = self.before.get("BraintrustApiUrl") or self.template.defaults()["BraintrustApiUrl"]
        if default != deployed and not is_known_host(default):
            print(f"  The file has {printable(default)}. Type it if it is yours: deploy.py sends the API key there.")
            default = None
        self.answers["BraintrustApiUrl"] = ask("2. Braintrust API URL", check_braintrust_url, default)

    def ask_api_key(self, is_deployed):
        given, offer = os.environ.get("BRAINTRUST_API_KEY"), ""
        self.offered = given or self.before.get("BraintrustApiKeySecretArn")
        if given:
            offer = "; Enter for BRAINTRUST_API_KEY"
        elif self.offered or is_deployed:
            offer = "; Enter to keep it"
            self.offered = self.offered or "as before"
        question = f"3. API key of a Braintrust organization admin, or its secret's ARN (hidden{offer})"
        self.providers, self.organizations = ask(question, self._check_api_key, hidden=True)

    def _check_api_key(self, answer):
        answer = answer or self.offered or ""
        if not answer:
            raise WrongAnswer("It must be an API key, such as sk-..., or the ARN of a secret that holds one.")
        key = answer
        if answer == "as before":
            key = self._read_secret(self.deployed_secret)
        elif answer.startswith("arn:"):
            self._accept("BraintrustApiKeySecretArn", answer)
            if answer.split(":")[3] != self.aws.region:
                raise WrongAnswer(f"The secret is in {answer.split(':')[3]}. It must be in {self.aws.region}.")
            key = self._read_secret(answer)
        else:
            self._accept("BraintrustApiKey", answer)
        found = look_around(self.answers["BraintrustApiUrl"], key) if key else (None, {})
        if answer.startswith("arn:"):
            self.answers["BraintrustApiKeySecretArn"] = answer
        elif answer != "as before":
            self.api_key = answer
            if self.before.get("BraintrustApiKeySecretArn"):
                self.answers["BraintrustApiKeySecretArn"] = ""
        return found

    def _accept(self, name, value):
        problem = self.template.problem_with(name, value)
        if problem:
            raise WrongAnswer(ended(problem[0].upper() + problem[1:]))

    def _read_secret(self, arn):
        """None if the caller may not read it. The function may, and providers are asked for by name then."""
        try:
            value = self.aws.call("secretsmanager", "get-secret-value", {"SecretId": arn})["SecretString"]
        except AwsError as error:
            if error.code.startswith("AccessDenied"):
                return None
            raise WrongAnswer(f"The secret can't be read: {error}") from None
        key = api_key_in(value)
        if not key:
            raise WrongAnswer('The secret holds no API key. It must be the key alone, or JSON with "api_key".')
        return key

    def ask_provider(self):
        if any(self.before.get(name) for name in ("Targets", "TargetsSecretArn", "TargetsBucket")):
            print("4. The providers are those in Targets, as before.")
            return
        project = self.before.get("BraintrustProject")
        if project or self.providers is None:
            print(f"  {why_not_listed(project)}")
            default = self.before.get("AiSecretId") or self.before.get("AiSecretName")
            self.answers.update(ask("4. The provider's name or ID", self._named_provider, default))
            return
        self._say_what_the_key_sees()
        while not self.providers:
            print(HOW_TO_MAKE_A_PROVIDER)
            self.providers = ask("4. Look again (Enter)", lambda _: self._look_again())
        self._list_providers()
        ids = [one["id"] for one in self.providers if not why_not(one)]
        names = [one["name"] for one in self.providers]
        before = self.before.get("AiSecretId")
        if not before and names.count(self.before.get("AiSecretName")) == 1:
            before = self.providers[names.index(self.before["AiSecretName"])]["id"]
        chosen = before if before in ids else ids[0] if len(ids) == 1 else None
        default = chosen and str(1 + [one["id"] for one in self.providers].index(chosen))
        self.provider = ask("4. Which one should be kept fresh", self._numbered_provider, default)
        self.answers["AiSecretId"] = self.provider["id"]
        self._keep_its_region()

    def _keep_its_region(self):
        """Otherwise the first rotation would write the stack's region into the provider."""
        region = region_of(self.provider)
        if "BedrockRegion" not in self.before and region not in (None, self.aws.region):
            self.answers["BedrockRegion"] = region

    def _say_what_the_key_sees(self):
        names = ", ".join(sorted(self.organizations.values())) or "unknown"
        count = len(self.providers)
        print(f"  Organization: {names}. Bedrock providers: {count}.")
        print("  Any key can read these. The first rotation shows whether this one is an admin's.")

    def _look_again(self):
        key = self.api_key or self._read_secret(self.answers.get("BraintrustApiKeySecretArn") or self.deployed_secret)
        return look_around(self.answers["BraintrustApiUrl"], key)[0]

    def _list_providers(self):
        width = max(len(one["name"]) for one in self.providers)
        widest = max(len(region_of(one) or "no region") for one in self.providers)
        for number, one in enumerate(self.providers, 1):
            changed = (one.get("secret_updated_at") or one.get("updated_at") or "")[:10]
            refused = why_not(one)
            remark = f"can't be chosen: {refused}" if refused else f"last changed {changed}" if changed else ""
            where = f"{self._organization(one)}  {region_of(one) or 'no region':<{widest}}"
            print(f"  {number:>2}  {one['name']:<{width}}  {where}  {remark}")

    def _organization(self, provider):
        return self.organizations.get(provider["org_id"], f"organization {provider['org_id']}")

    def _numbered_provider(self, answer):
        accepted = f"It must be a number from 1 to {len(self.providers)}."
        if not answer.isdigit() or not 1 <= int(answer) <= len(self.providers):
            raise WrongAnswer(f"Found {shown(answer)}. {accepted}")
        provider = self.providers[int(answer) - 1]
        if why_not(provider):
            raise WrongAnswer(f"{provider['name']} can't be chosen: {why_not(provider)}. {accepted}")
        return provider

    def _named_provider(self, answer):
        name = "AiSecretId" if re.fullmatch(UUID, answer) else "AiSecretName"
        if not answer:
            raise WrongAnswer("It must be a provider's name, such as AWS Bedrock, or its ID.")
        self._accept(name, answer)
        return {name: answer}

    def ask_alarm(self):
        default = self.before.get("AlarmEmail") or self.before.get("AlarmTopicArn")
        question = f"5. Email address or SNS topic ARN for alarms{', or none' if default else ' (Enter for none)'}"
        self.answers.update(ask(question, self._check_alarm, default))

    def _check_alarm(self, answer):
        if answer.lower() == "none":
            return {"AlarmEmail": "", "AlarmTopicArn": ""}
        name = "AlarmTopicArn" if answer.startswith("arn:") else "AlarmEmail"
        self._accept(name, answer)
        if name == "AlarmTopicArn":
            self._check_topic(answer)
        return {name: answer}

    def _check_topic(self, arn):
        region = arn.split(":")[3]
        if region != self.aws.region:
            raise WrongAnswer(f"The topic is in {region}. It must be in {self.aws.region}.")
        try:
            self.aws.call("sns", "get-topic-attributes", {"TopicArn": arn})
        except AwsError as error:
            if error.code not in ("AuthorizationError", "AuthorizationErrorException", "AccessDenied"):
                raise WrongAnswer(f"The topic can't be found: {error}") from None
            print("  You may not read this topic, so it isn't checked whether it exists.")


def check_yes(answer):
    if answer.lower() in ("y", "yes"):
        return True
    if answer.lower() in ("n", "no"):
        return False
    raise WrongAnswer(f"Found {shown(answer)}. It must be y or n.")


# The release bundle and the bucket that it is uploaded to


class Bundle:
    """The function and the template, in the folder of deploy.py or in dist/ beside it."""

    def __init__(self, beside):
        folders = [beside, beside / "dist"]
        self.folder = next((one for one in folders if (one / "cloudformation.json").is_file()), None)
        if not self.folder:
            raise Stop(
                f"There is no cloudformation.json in {beside} or in its dist/. Download a release and unpack it, or "
                "build one in a clone with `make release`."
            )
        self.template_file = self.folder / "cloudformation.json"
        self.schema_file = self.folder / "targets.schema.json"
        self.zips = {
            architecture: self.folder / f"{NAME}-{architecture}.zip"
            for architecture in ARCHITECTURES
            if (self.folder / f"{NAME}-{architecture}.zip").is_file()
        }
        if not self.zips:
            raise Stop(f"There is no {NAME}-x86_64.zip or {NAME}-arm64.zip in {self.folder}. Unpack the release again.")
        self._check_sums()
        self.template = Template(json.loads(self.template_file.read_text(encoding="utf-8")))

    def _check_sums(self):
        sums = self.folder / "SHA256SUMS"
        if not sums.is_file():
            return
        lines = [line.split() for line in sums.read_text().splitlines() if line]
        expected = {name.lstrip("*"): digest for digest, name in lines}
        for file in (self.template_file, self.schema_file, *self.zips.values()):
            if sha256(file) != expected.get(file.name):
                raise Stop(f"{file} is damaged: its SHA-256 isn't the one in {sums}. Download the release again.")

    def schema(self):
        """The JSON Schema of a list of targets."""
        return json.loads(self.schema_file.read_text(encoding="utf-8"))

    def architecture(self, wanted):
        """The wanted one, or the first that the bundle has."""
        if wanted and wanted not in self.zips:
            raise Stop(f"There is no {NAME}-{wanted}.zip in {self.folder}. There is {', '.join(self.zips)}.")
        return wanted or next(iter(self.zips))


def sha256(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def bucket_name(aws):
    return f"{NAME}-{aws.account}-{aws.region}"


def ensure_bucket(aws, name, may_create, tags, parameter="CodeBucket"):
    """Creates the private bucket if it isn't there, and refuses one of another account."""
    owner = {"ExpectedBucketOwner": aws.account}
    try:
        aws.call("s3api", "head-bucket", {"Bucket": name, **owner})
    except AwsError as error:
        if error.code in ("403", "AccessDenied", "Forbidden"):
            raise Stop(f"The bucket {name} belongs to another account, or you may not use it ({error}).") from None
        if error.code not in ("404", "NoSuchBucket", "NotFound"):
            raise
    else:
        if may_create and lacks_policy(aws, name):
            print(f"Protecting the bucket {name}, which an interrupted deployment has left without its policy")
            protect_bucket(aws, name, tags)
        return
    if not may_create:
        raise Stop(f"The bucket {name} in {parameter} doesn't exist. Create it, or remove {parameter}.")
    print(f"Creating the bucket {name}")
    where = {} if aws.region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": aws.region}}
    aws.call("s3api", "create-bucket", {"Bucket": name, **where})
    protect_bucket(aws, name, tags)


def ensure_versioned(aws, name, may_change):
    """Turns versioning on, so that a list of targets that was replaced by mistake can be restored."""
    request = {"Bucket": name, "ExpectedBucketOwner": aws.account}
    found = aws.call("s3api", "get-bucket-versioning", request) or {}
    if found.get("Status") == "Enabled":
        return
    if not may_change:
        command = f"aws s3api put-bucket-versioning --bucket {name} --versioning-configuration Status=Enabled"
        raise Stop(f"The bucket {name} in TargetsBucket has no versioning. Turn it on:\n  {command}")
    aws.call("s3api", "put-bucket-versioning", {**request, "VersioningConfiguration": {"Status": "Enabled"}})


def lacks_policy(aws, bucket):
    """False if the caller may not read it."""
    try:
        aws.call("s3api", "get-bucket-policy", {"Bucket": bucket, "ExpectedBucketOwner": aws.account})
    except AwsError as error:
        if error.code != "NoSuchBucketPolicy" and not error.code.startswith("AccessDenied"):
            raise
        return error.code == "NoSuchBucketPolicy"
    return False


def protect_bucket(aws, name, tags):
    """The policy comes last: a bucket that has it has all of these settings."""
    owner = {"ExpectedBucketOwner": aws.account}
    blocked = dict.fromkeys(["BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"], True)
    aws.call("s3api", "put-public-access-block", {"Bucket": name, "PublicAccessBlockConfiguration": blocked, **owner})
    encryption = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
    request = {"Bucket": name, "ServerSideEncryptionConfiguration": encryption, **owner}
    aws.call("s3api", "put-bucket-encryption", request)
    if tags:
        aws.call("s3api", "put-bucket-tagging", {"Bucket": name, "Tagging": {"TagSet": tags}, **owner})
    policy = json.dumps(only_tls(aws.partition, name))
    aws.call("s3api", "put-bucket-policy", {"Bucket": name, "Policy": policy, **owner})


def only_tls(partition, bucket):
    arn = f"arn:{partition}:s3:::{bucket}"
    statement = {
        "Sid": "OnlyTls",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [arn, f"{arn}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    return {"Version": "2012-10-17", "Statement": [statement]}


def upload(aws, bucket, stack, file):
    """Returns the key. It contains the content's hash, so that CloudFormation notices a change and can roll back."""
    key = f"{stack}/{sha256(file)[:16]}/{file.name}"
    request = {"Bucket": bucket, "Key": key, "ExpectedBucketOwner": aws.account}
    aws.call("s3api", "put-object", request, options=["--body", str(file)])
    return key


# The stack


def describe_stack(aws, stack):
    try:
        return aws.call("cloudformation", "describe-stacks", {"StackName": stack})["Stacks"][0]
    except AwsError as error:
        if error.code == "ValidationError" and "does not exist" in error.message:
            return None
        raise


def stacks_with_provider(aws, stack, ai_secret):
    """The other stacks of this template here that rotate the provider; none if the caller may not list stacks."""
    try:
        stacks = aws.call("cloudformation", "describe-stacks")["Stacks"]
    except AwsError:
        return []
    found = []
    for one in stacks:
        values = {each["ParameterKey"]: each.get("ParameterValue") for each in one.get("Parameters", [])}
        if one["StackName"] != stack and OF_EVERY_VERSION <= set(values) and values.get("AiSecretId") == ai_secret:
            found.append(one["StackName"])
    return found


class Progress:
    """On a terminal, one line that is redrawn; elsewhere, a line for each event."""

    def __init__(self):
        self.start = time.monotonic()

    def say(self, text):
        line = f"{time.monotonic() - self.start:5.0f} s  {text}"
        if sys.stdout.isatty():
            print("\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1], end="", flush=True)
        else:
            print(line, flush=True)

    def end(self, text):
        clear = "\r\x1b[K" if sys.stdout.isatty() else ""
        print(f"{clear}{time.monotonic() - self.start:5.0f} s  {text}", flush=True)


class Stack:
    def __init__(self, aws, name):
        self.aws, self.name = aws, name
        self.found = describe_stack(aws, name)

    @property
    def status(self):
        return self.found["StackStatus"] if self.found else None

    def is_deployed(self):
        return self.status not in (None, "REVIEW_IN_PROGRESS", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED")

    def parameters(self):
        """The deployed values; CloudFormation shows asterisks for secrets."""
        if not self.is_deployed():
            return {}
        return {one["ParameterKey"]: one["ParameterValue"] for one in self.found.get("Parameters", [])}

    def refuse_another_template(self):
        """Otherwise a name that is taken would cost whatever has it all of its resources."""
        names = {one["ParameterKey"] for one in (self.found or {}).get("Parameters", [])}
        # A stack in review has no resources, and may have no parameters yet.
        if self.found and self.status != "REVIEW_IN_PROGRESS" and not OF_EVERY_VERSION <= names:
            raise Stop(
                f"The stack {self.name} is something else, not a {NAME}. Choose another name with --stack, or delete "
                "it yourself."
            )

    def outputs(self):
        return {one["OutputKey"]: one["OutputValue"] for one in self.found.get("Outputs", [])}

    def refuse_what_cannot_be_updated(self):
        if self.status in ("UPDATE_ROLLBACK_FAILED", "DELETE_FAILED"):
            way_out = {
                "UPDATE_ROLLBACK_FAILED": "aws cloudformation continue-update-rollback --stack-name "
                f"{self.name} --region {self.aws.region}",
                "DELETE_FAILED": f"python3 deploy.py --stack {self.name} --region {self.aws.region} --delete",
            }
            raise Stop(f"The stack {self.name} is {self.status}. First run\n  {way_out[self.status]}")
        if self.status != "REVIEW_IN_PROGRESS" and (self.status or "").endswith("_IN_PROGRESS"):
            raise Stop(f"The stack {self.name} is being changed ({self.status}). Try again when that is done.")

    def remove_remains(self):
        """Deletes a stack that was never created, because CloudFormation can't update it."""
        if self.found and not self.is_deployed() and self.status != "REVIEW_IN_PROGRESS":
            print(f"Removing what a failed deployment left behind ({self.status})")
            self.delete()

    def change(self, template, template_url, parameters, tags, number_of_resources, when_begun):
        """Returns whether anything was changed. Calls `when_begun` before CloudFormation begins to change it."""
        change = {"StackName": self.name, "ChangeSetName": f"deploy-{int(time.time())}"}
        is_update = self.is_deployed()
        request = {
            **change,
            "ChangeSetType": "UPDATE" if is_update else "CREATE",
            "TemplateURL": template_url,
            "Parameters": parameters,
            "Capabilities": template.capabilities(),
            **({"Tags": tags} if tags else {}),
        }
        try:
            created = self.aws.call("cloudformation", "create-change-set", request)
            described = self._wait_for_change_set(change)
        except (KeyboardInterrupt, AwsError):
            self._withdraw(change, is_update)
            raise
        if described["Status"] == "FAILED":
            self._discard(change, created["StackId"], is_update)
            reason = described.get("StatusReason", "")
            if "didn't contain changes" in reason or "No updates are to be performed" in reason:
                return False
            raise Stop(f"CloudFormation refuses the change: {printable_lines(reason)}")
        if is_update:
            show_changes(described.get("Changes", []))
            number_of_resources = len(described.get("Changes", []))
        action = "UPDATE" if is_update else "CREATE"
        begin = ("execute-change-set", change)
        when_begun()
        self._run(begin, created["StackId"], action, number_of_resources)
        self.found = describe_stack(self.aws, self.name)
        return True

    def _wait_for_change_set(self, change):
        while True:
            described = self.aws.call("cloudformation", "describe-change-set", change)
            if described["Status"] in ("CREATE_COMPLETE", "FAILED"):
                return described
            time.sleep(1)

    def _discard(self, change, id, is_update):
        if is_update:
            self.aws.call("cloudformation", "delete-change-set", change)
        else:
            self.aws.call("cloudformation", "delete-stack", {"StackName": id})

    def _withdraw(self, change, is_update):
        """Removes what an interrupted `create-change-set` may have made, or names it."""
        try:
            found = None if is_update else describe_stack(self.aws, self.name)
            in_review = found and found["StackStatus"] == "REVIEW_IN_PROGRESS"
            if is_update or (in_review and not self.found):
                self._discard(change, found and found["StackId"], is_update)
            elif in_review:
                print(f"\nThe stack {self.name} is REVIEW_IN_PROGRESS, without any resources, as before.")
        except (KeyboardInterrupt, AwsError):
            kind = "a change set that wasn't executed" if is_update else "REVIEW_IN_PROGRESS, without any resources"
            print(f"\nThe stack {self.name} may {'have' if is_update else 'be'} {kind}. You can delete it.")

    def how_to_look(self):
        command = f"aws cloudformation describe-stacks --stack-name {self.name} --region {self.aws.region}"
        return f"CloudFormation continues without deploy.py. Look at it with\n  {command}"

    def _events(self, id):
        """The newest events of the stack, oldest first."""
        try:
            events = self.aws.call("cloudformation", "describe-stack-events", {"StackName": id}, ["--max-items", "200"])
        except AwsError as error:
            if error.code == "ValidationError":
                return []
            raise
        return list(reversed(events["StackEvents"]))

    def delete(self):
        id = self.found["StackId"]
        self._run(("delete-stack", {"StackName": id}), id, "DELETE")
        self.found = None

    def _run(self, begin, id, action, total=None):
        """Begins the action, shows its progress until the stack has arrived, and raises the first failure if any."""
        progress, done, failures = Progress(), set(), []
        seen = {one["EventId"] for one in self._events(id)}
        try:
            self.aws.call("cloudformation", *begin)
            while True:
                stack = describe_stack(self.aws, id)
                for event in self._events(id):
                    if event["EventId"] in seen or event.get("PhysicalResourceId") == id:
                        continue
                    seen.add(event["EventId"])
                    status = event["ResourceStatus"]
                    if status.endswith("_COMPLETE"):
                        done.add(event["LogicalResourceId"])
                    if status.endswith("_FAILED") and "cancelled" not in event.get("ResourceStatusReason", ""):
                        failures.append(event)
                    of = f" of {total}" if total else ""
                    progress.say(f"{len(done)}{of}  {event['LogicalResourceId']}: {status}")
                status = stack["StackStatus"] if stack else "DELETE_COMPLETE"
                if not status.endswith("_IN_PROGRESS"):
                    break
                time.sleep(1)
        except KeyboardInterrupt:
            raise Stop(f"\nInterrupted. {self.how_to_look()}", 2)
        progress.end(f"{self.name}: {status}")
        if status != f"{action}_COMPLETE":
            raise Stop(why_it_failed(self.name, status, failures, stack), 2 if action == "DELETE" else 1)


def show_changes(changes):
    for change in changes:
        resource = change["ResourceChange"]
        how = "Replace" if resource.get("Replacement") == "True" else resource["Action"]
        print(f"  {how:<8}{resource['LogicalResourceId']} ({resource['ResourceType']})")


def why_it_failed(name, status, failures, stack):
    if failures:
        first = failures[0]
        reason = f"{first['LogicalResourceId']} ({first['ResourceType']}): {first.get('ResourceStatusReason', '')}"
    else:
        reason = (stack or {}).get("StackStatusReason", "CloudFormation gives no reason.")
    reason = printable_lines(reason)
    if status == "ROLLBACK_COMPLETE":
        outcome = "CloudFormation has removed everything again, and the next deployment replaces the empty stack."
    elif status == "UPDATE_ROLLBACK_COMPLETE":
        outcome = "CloudFormation has restored what was deployed before."
    else:
        outcome = "Look at the stack's events in the CloudFormation console."
    return f"The stack {name} is {status}. The first failure:\n  {reason}\n{outcome}"


def stack_parameters(template, values, deployed):
    """The parameters of a change set. Those that aren't given keep their deployed value, or have their default."""
    for name in template.parameters:
        if name in values:
            yield {"ParameterKey": name, "ParameterValue": values[name]}
        elif name in deployed:
            yield {"ParameterKey": name, "UsePreviousValue": True}


# The first rotation and the doctor


def show_error(error):
    call = " ".join(error[field] for field in ("service", "call") if field in error)
    print(f"    {error['class']}: {call}: {error['problem']}\n    {error['remedy']}")


def with_names(action, names):
    return {"action": action, **({"targets": names} if names else {})}


def show_targets_error(answer):
    if "targets_error" in answer:
        print("  The function can't use the newest list of targets, and uses the last good one:")
        show_error(answer["targets_error"])


def rotate(aws, function, is_new, names=()):
    """Rotates what is due and shows the outcomes. Returns whether all is well, and the report."""
    for seconds in (10, 10, 10, 0):
        try:
            report, failed = aws.invoke(function, with_names("rotate", names))
            # IAM takes some seconds to let a new role be assumed.
            if not seconds or not failed or not is_new or classes_of(report) != {"permission"}:
                break
            reason = "IAM doesn't know the new role everywhere"
        except AwsError as error:
            if error.code != "TooManyRequestsException" or not seconds:
                raise
            reason = "another run is under way"
        print(f"  Not yet: {reason}. Trying again in {seconds} s.")
        time.sleep(seconds)
    if not isinstance(report, dict) or "targets" not in report:
        print(f"  {report}")
        # With a list that it can't use, a function doesn't start, or doesn't know the targets of the event. A message
        # without this name has another reason, such as a timeout, or a list that the function hasn't read.
        is_refused = "function TARGETS_S3_URI: " in str(report)
        return False, {"targets": [], "targets_error": {"class": "configuration" if is_refused else "unavailable"}}
    show_targets_error(report)
    for target in report["targets"]:
        expires = f", expires {target['expires_at']}" if "expires_at" in target else ""
        print(f"  {target['name']}: {target['outcome']}{expires}")
        for warning in target.get("warnings", []):
            print(f"    warning: {warning}")
        if "error" in target:
            show_error(target["error"])
    show_left_out(report)
    return not failed, report


def show_left_out(answer):
    """Counts the targets that the answer leaves out. Those that failed are left out last."""
    for label, number in answer.get("left_out", {}).items():
        print(f"  {number} more: {label}")


def classes_of(report):
    targets = report.get("targets", []) if isinstance(report, dict) else []
    return {target["error"]["class"] for target in targets if "error" in target}


def rotated_in(report):
    """The names of the targets that have just been rotated, and proven as far as they ask for it."""
    return {target["name"] for target in report["targets"] if target["outcome"] == "rotated" and not is_unproven(target)}


def is_unproven(target):
    results = [one["end_to_end"]["result"] for one in target.get("ai_secrets", []) if "end_to_end" in one]
    return "unproven" in results


def doctor(aws, function, rotated, names=()):
    """Shows the checks, and returns whether all is well. `rotated` has the targets that have just been rotated."""
    answer, failed = aws.invoke(function, with_names("check", names))
    if failed or not isinstance(answer, dict) or "targets" not in answer:
        print(f"  {answer}")
        return False
    show_targets_error(answer)
    for target in answer["targets"]:
        bad = [line for line in target["lines"] if line["result"] not in ("ok", "unknown") or is_unread(line)]
        results = [line["result"] for line in target["lines"] if not is_unread(line)]
        print(f"  {target['name']}: {describe_checks(results, target['name'] in rotated)}")
        for line in bad:
            print(f"    {line['result']}: {line['what']}" + (f" ({line['note']})" if "note" in line else ""))
            if "error" in line:
                show_error(line["error"])
    show_left_out(answer)
    return answer["ok"]


def is_unread(line):
    """Whether a part of Braintrust could not be read. No rotation shows what is there."""
    return line["result"] == "unknown" and line["what"].startswith("look at ")


def describe_checks(results, was_rotated):
    unknown = results.count("unknown")
    ok = f"{results.count('ok')} check{'' if results.count('ok') == 1 else 's'} ok"
    if not was_rotated:
        return ok + (f", {unknown} that only a rotation can tell" if unknown else "")
    # What only a rotation can tell, this one has told.
    is_healthy = set(results) <= {"ok", "unknown"}
    shown = f", {unknown} proven by the rotation" if unknown else ""
    return f"{'Healthy, ' if is_healthy else ''}{ok}{shown}"


def bedrock_role_command(values, outputs):
    role = values["BedrockRoleArn"]
    external_id = values.get("ExternalId") or "<one of your choice, also as ExternalId of this stack>"
    return (
        f"The role {role} must trust this stack. With credentials of the account {role.split(':')[4]}:\n"
        f"  aws cloudformation deploy --template-file bedrock-role.yaml --stack-name {role.rpartition('/')[2]} \\\n"
        f"    --capabilities CAPABILITY_NAMED_IAM --parameter-overrides RoleName={role.rpartition('/')[2]} \\\n"
        f"    ExecutionRoleArn={outputs['ExecutionRoleArn']} ExternalId='{external_id}'"
    )


def is_unconfirmed(aws, topic, email):
    """Whether the owner of the address has yet to confirm the subscription."""
    subscriptions = aws.call("sns", "list-subscriptions-by-topic", {"TopicArn": topic})["Subscriptions"]
    return any(one["Endpoint"] == email and not one["SubscriptionArn"].startswith("arn:") for one in subscriptions)


def dashboard_url(aws, name):
    console = DOMAINS.get(aws.partition, DOMAINS["aws"])[1]
    return f"https://{aws.region}.{console}/cloudwatch/home?region={aws.region}#dashboards/dashboard/{name}"


# Deploying


class Deployment:
    def __init__(self, aws, options):
        self.aws, self.options = aws, options
        self.bundle = Bundle(Path(__file__).resolve().parent)
        self.template = self.bundle.template
        self.interrupted = "Interrupted. Nothing was deployed."
        self.targets = TargetList(options.targets, self.bundle.schema()) if options.targets else None
        self.list = None

    def run(self):
        if self.targets and not self.options.config:
            return self._replace_targets()
        if self.options.config:
            config, name = read_config(Path(self.options.config)), self.options.config
            chosen_values(self.template, config, {}, name)
            self._sign_in(config)
            stack = self._open(self.options.stack)
            values, config = self._values(config, name, secrets_in(os.environ, self.template), stack)
            self._show_summary(stack, values)
            if self.targets and stack.parameters().get("TargetsBucket"):
                self._show_changes_of_list(stack.parameters())
        else:
            stack, values, config = self._ask()
        ok = self._deploy(stack, values, config)
        return 0 if ok else 2

    def _sign_in(self, config):
        region = self.options.region or config.get("Region", ("",))[0] or self.aws.configured_region()
        if not region:
            raise Stop(f"The region is unknown. Write `Region: us-east-1` into {self.options.config}, or use --region.")
        sign_in(self.aws, region)

    def _replace_targets(self):
        """Uploads the list for a stack that has one in S3 already, and rotates what is new or different in it."""
        path = Path("deploy", f"{self.options.stack}.yaml")
        self.options.config = str(path)
        self._sign_in(read_config(path) if path.exists() else {})
        stack = self._open(self.options.stack)
        deployed = stack.parameters()
        if not deployed.get("TargetsBucket"):
            raise Stop(
                f"The stack {stack.name} has no list of targets in S3 yet. Write the stack's parameters, such as "
                "RoleArns, into a file, and pass that file to --config, together with --targets."
            )
        self.targets.refuse_what_is_not_allowed(self._effective({}, deployed), f"{path}, and deploy it with --config")
        changed = self._show_changes_of_list(deployed)
        ensure_versioned(self.aws, self.list.bucket, self.list.bucket == bucket_name(self.aws))
        self._upload_targets()
        # One target is enough to see whether the function accepts the list.
        ok = self._prove(stack, self._effective({}, deployed), False, changed or [self.targets.targets[0]["name"]])
        return 0 if ok else 2

    def _show_changes_of_list(self, deployed):
        """Returns the names of the targets that are new or different, and asks before targets are removed."""
        self.list = ListInS3(self.aws, deployed["TargetsBucket"], deployed["TargetsKey"])
        changed, gone = self.targets.changes_since(self.list.read())
        print(f"New or different: {listed(changed) or 'none'}")
        if gone is None:
            print(f"{self.list.url} can't be read as a list. Targets that only it has won't be rotated any more.")
        elif gone:
            print(f"No longer in the list: {listed(gone)}. They won't be rotated any more, and keep their credentials.")
        if gone != [] and not self.options.yes:
            if not sys.stdin.isatty():
                raise Stop("deploy.py asks before it removes targets. To remove them without asking, use --yes.")
            if not ask("Remove them? [y/N]", lambda answer: check_yes(answer or "n")):
                raise Stop("You answered no.")
        return changed

    def _upload_targets(self, is_read=True):
        """`is_read` is false if no function reads this object yet."""
        if is_read and self.list.has_changed():
            problem = f"{self.list.url} has changed since it was compared, so your list wasn't uploaded. Start again."
            raise Stop(problem, 1 if "Nothing" in self.interrupted else 2)
        print(f"Uploading {len(self.targets.targets)} targets to {self.list.url}")
        try:
            self.list.put(self.targets.bytes)
        except (KeyboardInterrupt, AwsError) as error:
            # An error without a code isn't an answer of S3.
            if is_read and not getattr(error, "code", ""):
                self.interrupted = f"Interrupted. {self._not_proven('may be')}"
            raise

    def _not_proven(self, is_or_may_be="is"):
        text = f"The new list in {self.list.url} {is_or_may_be} in use, but not proven. To prove it, run{self._again()}"
        place = f"--bucket {self.list.bucket} --key {self.list.key} --region {self.aws.region}"
        source = f"'{self.list.bucket}/{self.list.key}?versionId={self.list.version}'"
        put_back = f"To put the earlier one back, run\n  aws s3api copy-object {place} --copy-source {source}"
        return f"{text}\n{put_back}" if self.list.version else text

    def _again(self):
        return f"\n  python3 deploy.py --stack {self.options.stack} --region {self.aws.region} --targets {self.targets.path}"

    def _stop_without_proof(self, error):
        """Puts the earlier list back if the function can't use the new one: its next environment wouldn't start."""
        if error["class"] in ("throttled", "unavailable", "timeout"):
            raise Stop(self._not_proven(), 2)
        if not targets_by_name(self.list.before) or self.list.before == self.targets.bytes:
            outcome = "has no earlier one"
        elif self.list.has_changed():
            outcome = "has changed since, and stays"
        else:
            self.list.put(self.list.before)
            outcome = "has the earlier one again"
        what_to_do = f"Correct {self.targets.path}, and run{self._again()}"
        raise Stop(f"The function can't use the list. {self.list.url} {outcome}. {what_to_do}", 2)

    def _open(self, name):
        stack = Stack(self.aws, name)
        stack.refuse_another_template()
        stack.refuse_what_cannot_be_updated()
        return stack

    def _ask(self):
        if not sys.stdin.isatty() or not sys.stdout.isatty():
            raise Stop(
                "deploy.py asks its questions at a terminal, and this isn't one. Give the answers in a file: "
                f"--config deploy/{self.options.stack}.yaml"
            )
        path = Path("deploy", f"{self.options.stack}.yaml")
        config = read_config(path) if path.exists() else {}
        # Before the questions, so that a mistake in the file doesn't cost the answers.
        chosen_values(self.template, config, {}, str(path))
        before = {key: value for key, (value, _) in config.items()}
        questions = Questions(self.aws, self.template, self.options.stack, before)
        questions.ask_region(self.options.region)
        stack = self._open(self.options.stack)
        deployed = {name: value for name, value in stack.parameters().items() if not self._is_hidden(name)}
        questions.before = {**changed_from_default(self.template, deployed), **before}
        questions.deployed_secret = stack.outputs().get("BraintrustApiKeySecretArn") if stack.is_deployed() else None
        questions.ask_braintrust_url(deployed.get("BraintrustApiUrl"))
        questions.ask_api_key(bool(questions.deployed_secret))
        questions.ask_provider()
        questions.ask_alarm()
        answers = with_other_of_pairs_emptied(questions.answers, questions.before)
        text = path.read_text(encoding="utf-8") if path.exists() else blank_config(self.template, self.options.stack)
        text = updated_config(text, {**questions.before, **answers})
        config = parse_config(text, str(path))
        secrets = secrets_in(os.environ, self.template)
        secrets.pop("BraintrustApiKey", None)
        secrets.update({"BraintrustApiKey": questions.api_key} if questions.api_key else {})
        values, config = self._values(config, str(path), secrets, stack)
        self._show_summary(stack, values, questions.provider)
        if not ask("6. Deploy? [Y/n]", lambda answer: check_yes(answer or "y")):
            raise Stop("You answered no.")
        write_config(path, text)
        print(f"The answers are in {path}, all but the API key.")
        return stack, values, config

    def _is_hidden(self, name):
        return (
            name not in self.template.parameters
            or name in ("CodeBucket", "CodeKey", "Architecture")
            or bool(self.template.parameters[name].get("NoEcho"))
        )

    def _values(self, config, name, secrets, stack):
        """The values that are given, and the config's own keys. Everything that can be checked here is checked."""
        deployed, values = stack.parameters(), chosen_values(self.template, config, secrets, name)
        values.setdefault("CodeBucket", deployed.get("CodeBucket") or bucket_name(self.aws))
        if self.targets:
            has_list = bool(deployed.get("TargetsBucket"))
            if not has_list and "TargetsBucket" not in values and values["CodeBucket"] != bucket_name(self.aws):
                raise Stop(
                    f"CodeBucket is a bucket of your own. In {name}, also name a bucket for the list of targets, as "
                    "TargetsBucket. Whoever can write there decides where the function sends API keys."
                )
            values.setdefault("TargetsBucket", deployed["TargetsBucket"] if has_list else values["CodeBucket"])
            values.setdefault("TargetsKey", deployed["TargetsKey"] if has_list else f"{stack.name}/targets.json")
        values = with_other_of_pairs_emptied(values, deployed)
        before = deployed.get("Architecture")
        before = before if before in self.bundle.zips else None
        values["Architecture"] = self.bundle.architecture(values.get("Architecture") or before)
        if "ReservedConcurrency" not in values and not deployed:
            values.update(self._reserved_concurrency())
        broken = list(self.template.broken_rules(self._effective(values, deployed)))
        if broken:
            hint = f" ({variable_of('BraintrustApiKey')} in the environment sets BraintrustApiKey.)"
            lines = [f"  {text}{hint if 'BraintrustApiKey or' in text else ''}" for text in broken]
            raise Stop("\n".join([f"The parameters in {name} break the template's rules:", *lines]))
        if self.targets:
            self.targets.refuse_what_is_not_allowed(self._effective(values, deployed), name)
        return values, {key: config[key][0] for key in OWN_KEYS if key in config}

    def _reserved_concurrency(self):
        try:
            if can_reserve_concurrency(self.aws.call("lambda", "get-account-settings")):
                return {}
            reason = f"the account must keep {MUST_STAY_UNRESERVED} unreserved"
        except AwsError as error:
            reason = f"your credentials may not read the account's limits ({error.code or error})"
        print(f"  No concurrency is reserved for the function: {reason}. The function is safe without it.")
        return {"ReservedConcurrency": "0"}

    def _effective(self, values, deployed):
        known = {name: deployed[name] for name in deployed if name in self.template.parameters}
        if known.get("BraintrustApiKeySecretArn"):
            # CloudFormation shows asterisks for an empty secret, too.
            known["BraintrustApiKey"] = ""
        aws = self.aws
        pseudo = {"AWS::Region": aws.region, "AWS::Partition": aws.partition, "AWS::AccountId": aws.account}
        return {**pseudo, **self.template.defaults(), **known, **values}

    def _show_summary(self, stack, values, provider=None):
        deployed = stack.parameters()
        effective = self._effective(values, deployed)
        types = self.template.created(effective).values()
        verb = "Updates" if stack.is_deployed() else "Creates"
        print(f"\n{verb} the stack {stack.name} in {self.aws.region}, account {self.aws.account}:")
        print(wrapped("  Resources  ", describe_resources(types)))
        if provider:
            print(f"  Provider   {provider['name']} ({provider['id']})")
            region = effective["BedrockRegion"] or self.aws.region
            print(wrapped(" " * 13, describe_bedrock_region(region, provider)))
        others = stacks_with_provider(self.aws, stack.name, effective["AiSecretId"]) if effective["AiSecretId"] else []
        if others:
            warning = f"This provider is rotated by {', '.join(others)} already."
            print(wrapped("  Warning    ", f"{warning} Two stacks replace each other's credentials."))
        if effective["BraintrustProject"]:
            named = effective["AiSecretName"] or effective["AiSecretId"]
            print(wrapped("  Provider   ", f"{named}, of the project {effective['BraintrustProject']}"))
        print(f"  Schedule   {effective['ScheduleExpression']}")
        if effective["EndToEndModelId"]:
            is_staged = self.template.evaluate({"Condition": "IsStaged"}, effective)
            print(wrapped("  Proof      ", describe_proof(effective["EndToEndModelId"], is_staged)))
        receiver = effective["AlarmEmail"] or effective["AlarmTopicArn"]
        print(f"  Alarms     {receiver or 'to a topic without subscribers'}")
        number = targets_in(effective)
        if self.targets:
            number = len(self.targets.targets)
            place = f"s3://{effective['TargetsBucket']}/{effective['TargetsKey']}"
            print(wrapped("  Targets    ", f"{number}, from {self.targets.path}, in {place}"))
        print(wrapped("  Cost       ", describe_cost(types, number)))
        if deployed:
            self._show_differences(values, deployed)

    def _show_differences(self, values, deployed):
        defaults = self.template.defaults()
        for name, value in values.items():
            hidden = self.template.parameters[name].get("NoEcho")
            if hidden or value != deployed.get(name, defaults[name]):
                change = "a new value" if hidden else f"{deployed.get(name, '')!r} becomes {value!r}"
                if name not in ("CodeBucket", "CodeKey"):
                    print(f"  Changes    {name}: {change}")
        kept = [
            f"{name}={printable(value)}"
            for name, value in changed_from_default(self.template, deployed).items()
            if name not in values and not self._is_hidden(name)
        ]
        if kept:
            print(wrapped("  Keeps      ", ", ".join(kept)))

    def _deploy(self, stack, values, config):
        tags = tags_of(config.get("Tags", ""))
        stack.remove_remains()
        bucket = values["CodeBucket"]
        ensure_bucket(self.aws, bucket, bucket == bucket_name(self.aws), tags)
        self.interrupted = f"Interrupted. Nothing was deployed, but the bucket {bucket} exists."
        print("Uploading the function and the template")
        values["CodeKey"] = upload(self.aws, bucket, stack.name, self.bundle.zips[values["Architecture"]])
        key = upload(self.aws, bucket, stack.name, self.bundle.template_file)
        suffix = DOMAINS.get(self.aws.partition, DOMAINS["aws"])[0]
        url = f"https://s3.{self.aws.region}.{suffix}/{bucket}/{key}"
        deployed, is_new = stack.parameters(), not stack.is_deployed()
        place = [values.get(name) for name in ("TargetsBucket", "TargetsKey")] if self.targets else None
        # A new function must find the list when it starts. A function that already reads this object must not find
        # targets that its policy doesn't allow yet, so the list is then uploaded after the stack has changed.
        is_read = place == [deployed.get(name) for name in ("TargetsBucket", "TargetsKey")]
        if place:
            is_own = place[0] == bucket_name(self.aws)
            ensure_bucket(self.aws, place[0], is_own, tags, "TargetsBucket")
            ensure_versioned(self.aws, place[0], is_own)
            if not is_read:
                self.list = ListInS3(self.aws, *place, self.list and self.list.before)
                self._upload_targets(is_read)
        parameters = list(stack_parameters(self.template, values, deployed))
        effective = self._effective(values, deployed)

        def when_begun():
            self.interrupted = f"Interrupted. {stack.how_to_look()}"

        number = len(self.template.created(effective))
        if not stack.change(self.template, url, parameters, tags, number, when_begun):
            print("Nothing to change: the stack already has these parameters and this release.")
        self.interrupted = f"Interrupted. The stack {stack.name} is deployed."
        if place and is_read:
            self._upload_targets()
        return self._prove(stack, effective, is_new)

    def _prove(self, stack, values, is_new, names=()):
        outputs = stack.outputs()
        how_many = ""
        # A fleet may have more targets than fit into an invocation.
        if values["ScheduleState"] == "DISABLED" and (names := names or self._names_of_targets(values)):
            names, how_many = names[:MAX_NAMES], f" at most {MAX_NAMES} targets, because ScheduleState is DISABLED"
        done = f"Interrupted. The stack {stack.name} is deployed."
        self.interrupted = f"{done} {self._not_proven()}" if self.targets else done
        print(f"\nRotating{how_many}")
        rotated, report = rotate(self.aws, outputs["FunctionName"], is_new and not values["BedrockRoleArn"], names)
        if self.targets and "targets_error" in report:
            self._stop_without_proof(report["targets_error"])
        self.interrupted = done
        print("\nChecking everything that a rotation needs")
        healthy = doctor(self.aws, outputs["FunctionName"], rotated_in(report), names)
        if not rotated and "permission" in classes_of(report) and values["BedrockRoleArn"]:
            print("\n" + bedrock_role_command(values, outputs))
        print(f"\nDashboard  {dashboard_url(self.aws, outputs['DashboardName'])}")
        if values["AlarmEmail"] and is_unconfirmed(self.aws, outputs["AlarmTopicArn"], values["AlarmEmail"]):
            print(f"Confirm the email from AWS Notifications to {values['AlarmEmail']}. No alarm is sent before that.")
        ok = rotated and healthy
        print("The stack is deployed, " + ("and rotations work." if ok else "but something is wrong: see above."))
        return ok

    def _names_of_targets(self, values):
        """Without a list in S3, none, because all of them fit into an invocation."""
        if self.targets:
            return [target["name"] for target in self.targets.targets]
        bucket, key = values["TargetsBucket"], values["TargetsKey"]
        return list(targets_by_name(ListInS3(self.aws, bucket, key).read()) or []) if bucket else []


def changed_from_default(template, deployed):
    defaults = template.defaults()
    return {name: value for name, value in deployed.items() if name in defaults and value != defaults[name]}


def read_config(path):
    try:
        return parse_config(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise Stop(f"{path} can't be read: {error.strerror}. Without --config, deploy.py asks and writes it.") from None


def sign_in(aws, region):
    try:
        aws.use_region(region)
    except AwsError as error:
        raise credentials_stop(error) if error.is_about_credentials() else Stop(f"AWS: {error}") from None


# Deleting


class Deletion:
    def __init__(self, aws, options):
        self.aws, self.options = aws, options
        self.interrupted = "Interrupted. Nothing was deleted."

    def run(self):
        path = Path(self.options.config or Path("deploy", f"{self.options.stack}.yaml"))
        config = read_config(path) if self.options.config or path.exists() else {}
        region = self.options.region or config.get("Region", ("",))[0] or self.aws.configured_region()
        if not region:
            raise Stop("The region is unknown. Give --region.")
        sign_in(self.aws, region)
        stack = Stack(self.aws, self.options.stack)
        stack.refuse_another_template()
        bucket = config.get("CodeBucket", ("",))[0] or stack.parameters().get("CodeBucket") or bucket_name(self.aws)
        resources = self._resources(stack)
        objects = self._uploaded(bucket, stack.name)
        if not stack.found and not objects:
            raise Stop(f"There is no stack {stack.name} in {region}, account {self.aws.account}.")
        if stack.found and stack.found.get("EnableTerminationProtection"):
            command = "aws cloudformation update-termination-protection --no-enable-termination-protection"
            where = f"--stack-name {stack.name} --region {region}"
            raise Stop(f"The stack is protected against deletion. First run\n  {command} {where}")
        self._show(stack, resources, bucket, objects)
        self._confirm(stack.name)
        self.interrupted = f"Interrupted. The stack {stack.name} is partly deleted. Start it again."
        if stack.found:
            self._delete_stack(stack, resources)
        self._empty_bucket(bucket, stack.name)
        left = f" {path} stays." if path.exists() else ""
        print(f"Deleted.{left}")
        return 0

    def _resources(self, stack):
        if not stack.found:
            return []
        request = {"StackName": stack.found["StackId"]}
        listed = self.aws.call("cloudformation", "list-stack-resources", request)["StackResourceSummaries"]
        return [one for one in listed if one.get("ResourceStatus") != "DELETE_COMPLETE"]

    def _show(self, stack, resources, bucket, objects):
        print(f"This deletes in {self.aws.region}, account {self.aws.account}, for good:")
        if stack.found:
            gone = [type for type in (one["ResourceType"] for one in resources) if type != "AWS::Logs::LogGroup"]
            contents = f", with {describe_resources(gone)}" if gone else ""
            print(wrapped("  ", f"the stack {stack.name} ({stack.status}){contents}"))
        for secret in (one for one in resources if one["ResourceType"] == "AWS::SecretsManager::Secret"):
            name = secret.get("PhysicalResourceId", secret["LogicalResourceId"])
            print(f"  the secret {name}, without a recovery window")
        for user in self._users(resources):
            print(f"  the IAM user {user}, with its access keys and API keys: whoever uses them loses access")
        if objects:
            print(f"  {len(objects)} uploaded files in the bucket {bucket}, and the bucket if no other stack uses it")
        self._show_targets(stack, bucket, objects)
        for group in (one for one in resources if one["ResourceType"] == "AWS::Logs::LogGroup"):
            name = group.get("PhysicalResourceId", group["LogicalResourceId"])
            command = f"aws logs delete-log-group --log-group-name {name} --region {self.aws.region}"
            print(f"The log group {name} stays. This command deletes it:\n  {command}")
        print("Braintrust keeps the last credentials. Temporary ones work until they expire, within the hour.")

    def _show_targets(self, stack, bucket, objects):
        own = f"{stack.name}/targets.json"
        if versions := sum(one["Key"] == own for one in objects):
            print(f"  the list of targets s3://{bucket}/{own}, with its {versions} versions, among those files")
        place = [stack.parameters().get(name) for name in ("TargetsBucket", "TargetsKey")] if stack.found else [None]
        if place[0] and place != [bucket, own]:
            print(f"The list of targets s3://{place[0]}/{place[1]} stays.")

    def _confirm(self, name):
        if self.options.yes:
            return
        if not sys.stdin.isatty():
            raise Stop(
                "deploy.py asks before it deletes, and this isn't a terminal. To delete without asking, use --yes."
            )

        def check(answer):
            if answer not in (name, ""):
                raise WrongAnswer(f"Found {shown(answer)}. Type {name} to delete it, or press Enter to keep it.")
            return answer

        if not ask(f"Type the stack's name to delete it ({name})", check):
            raise Stop("You kept it.")

    def _users(self, resources):
        """The IAM users that the stack has created; users of your own aren't among its resources."""
        users = [one for one in resources if one["ResourceType"] == "AWS::IAM::User"]
        return [one["PhysicalResourceId"] for one in users if one.get("PhysicalResourceId")]

    def _delete_stack(self, stack, resources):
        users = self._users(resources)
        for one in resources if users else []:
            if one["ResourceType"] == "AWS::Lambda::Function" and one.get("PhysicalResourceId"):
                self._stop_function(one["PhysicalResourceId"])
        for user in users:
            self._delete_keys(user)
        for one in resources:
            if one["LogicalResourceId"] == "BedrockRole" and one.get("PhysicalResourceId"):
                self._delete_revocation(one["PhysicalResourceId"])
        try:
            stack.delete()
        except Stop:
            if not users:
                raise
            # A run that was under way has created another key since.
            for user in users:
                self._delete_keys(user)
            stack.found = describe_stack(self.aws, stack.name)
            if stack.found:
                stack.delete()

    def _stop_function(self, function):
        """Otherwise a scheduled run could create a key between their deletion and the user's."""
        request = {"FunctionName": function, "ReservedConcurrentExecutions": 0}
        try:
            self.aws.call("lambda", "put-function-concurrency", request)
        except AwsError as error:
            if error.code != "ResourceNotFoundException":
                raise

    def _delete_keys(self, user):
        asked = {"UserName": user}
        try:
            keys = self.aws.call("iam", "list-access-keys", asked)["AccessKeyMetadata"]
        except AwsError as error:
            if error.code == "NoSuchEntity":
                return
            raise
        for key in keys:
            print(f"Deleting the access key {key['AccessKeyId']}")
            self.aws.call("iam", "delete-access-key", {**asked, "AccessKeyId": key["AccessKeyId"]})
        listed = self.aws.call("iam", "list-service-specific-credentials", asked)["ServiceSpecificCredentials"]
        for key in listed:
            id = key["ServiceSpecificCredentialId"]
            print(f"Deleting the API key {id}")
            self.aws.call("iam", "delete-service-specific-credential", {**asked, "ServiceSpecificCredentialId": id})

    def _delete_revocation(self, role):
        """The policy by which a revocation has ended sessions. CloudFormation can't delete a role that has it."""
        try:
            self.aws.call("iam", "delete-role-policy", {"RoleName": role, "PolicyName": REVOCATION})
        except AwsError as error:
            if error.code == "NoSuchEntity":
                return
            if not error.code.startswith("AccessDenied"):
                raise
            command = f"aws iam delete-role-policy --role-name {role} --policy-name {REVOCATION}"
            print(f"You may not delete the role's policy {REVOCATION}, which a revocation creates. If there is one, run")
            print(f"  {command}")
        else:
            print(f"Deleted the policy {REVOCATION} of the role {role}")

    def _objects(self, bucket, prefix=""):
        """All versions and delete markers below a prefix."""
        request = {"Bucket": bucket, "Prefix": prefix, "ExpectedBucketOwner": self.aws.account}
        try:
            listed = self.aws.call("s3api", "list-object-versions", request) or {}
        except AwsError as error:
            if error.code in ("NoSuchBucket", "404"):
                return []
            raise
        found = listed.get("Versions", []) + listed.get("DeleteMarkers", [])
        return [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in found]

    def _uploaded(self, bucket, stack):
        """What `upload` has put there. In a bucket of your own, other files may have the same prefix."""
        names = [f"{NAME}-{architecture}.zip" for architecture in ARCHITECTURES] + ["cloudformation.json"]
        pattern = rf"{stack}/([0-9a-f]{{16}}/({'|'.join(map(re.escape, names))})|targets\.json)"
        return [one for one in self._objects(bucket, f"{stack}/") if re.fullmatch(pattern, one["Key"])]

    def _empty_bucket(self, bucket, stack):
        objects = self._uploaded(bucket, stack)
        for start in range(0, len(objects), 1000):
            batch = {"Objects": objects[start : start + 1000], "Quiet": True}
            request = {"Bucket": bucket, "Delete": batch, "ExpectedBucketOwner": self.aws.account}
            failed = self.aws.call("s3api", "delete-objects", request)
            if failed and failed.get("Errors"):
                raise Stop(f"S3 didn't delete {failed['Errors'][0]['Key']}: {failed['Errors'][0]['Message']}", 2)
        if bucket != bucket_name(self.aws):
            print(f"The bucket {bucket} stays, because deploy.py didn't create it.")
        elif self._objects(bucket):
            print(f"The bucket {bucket} stays, because it has other files.")
        elif objects:
            self.aws.call("s3api", "delete-bucket", {"Bucket": bucket, "ExpectedBucketOwner": self.aws.account})
            print(f"Deleted the bucket {bucket}")


# The command line


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Stop(f"{message}. See python3 deploy.py --help.")


def options_of(arguments):
    first, _, rest = __doc__.partition("\n\n")
    parser = Parser(
        prog="deploy.py", description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stack", help=f"the stack's name (default: that of the --config file, or {NAME})")
    parser.add_argument("--region", help="the region (default: Region in the file, AWS_REGION, or your profile's)")
    parser.add_argument("--profile", help="the AWS CLI's profile to use")
    parser.add_argument("--config", metavar="FILE", help="deploy what this file says, without questions")
    parser.add_argument("--targets", metavar="FILE", help="a JSON file with the list of targets, to keep in S3")
    parser.add_argument("--delete", action="store_true", help="delete the stack, its keys, and its uploaded files")
    parser.add_argument("--yes", action="store_true", help="with --delete or --targets, don't ask")
    options = parser.parse_args(arguments)
    if options.yes and not (options.delete or options.targets):
        parser.error("--yes goes with --delete or --targets. To deploy without questions, give --config")
    if options.targets and options.delete:
        parser.error("--targets doesn't go with --delete, which deletes the list that deploy.py has uploaded")
    options.stack = options.stack or (Path(options.config).stem if options.config else NAME)
    if not re.fullmatch(STACK_NAME, options.stack):
        parser.error(
            f"the stack's name would be {shown(options.stack)}, but it must begin with a letter and have only letters, "
            "digits, and hyphens. Give --stack"
        )
    if options.region and not re.fullmatch(REGION, options.region):
        parser.error(f"--region is {shown(options.region)}, but it must be a region, such as us-east-1")
    return options


def end_on_signals():
    """As by Ctrl-C. Otherwise the file with the API key that the AWS CLI is reading would stay."""
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)


def main(arguments):
    end_on_signals()
    is_deletion, work = "--delete" in arguments, None
    nothing = "Nothing was deleted." if is_deletion else "Nothing was deployed."
    with tempfile.TemporaryDirectory(prefix=f"{NAME}-") as folder:
        try:
            options = options_of(arguments)
            aws = Aws(folder, options.profile)
            work = (Deletion if options.delete else Deployment)(aws, options)
            return work.run()
        except Stop as stop:
            print(f"{stop}{f'{chr(10)}{nothing}' if stop.status == 1 else ''}", file=sys.stderr)
            return stop.status
        except AwsError as error:
            hint = " deployer-policy.json has all permissions." if "AccessDenied" in error.code else ""
            done = getattr(work, "interrupted", nothing).replace("Interrupted. ", "")
            print(f"AWS: {error}{hint}\n{done}", file=sys.stderr)
            return 1 if done.startswith("Nothing") else 2
        except KeyboardInterrupt:
            done = work.interrupted if work else nothing
            print(f"\n{done}", file=sys.stderr)
            return 1 if "Nothing" in done else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
