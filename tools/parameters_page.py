"""Writes docs/parameters.md, which lists every parameter of the templates, from the templates themselves.

Run this after a change of a parameter. A test fails as long as the page differs from the templates.
"""

import textwrap

from environment import ROOT
from samcli.yamlhelper import yaml_parse

PAGE = ROOT / "docs/parameters.md"
INTRODUCTION = """\
# Parameters

`deploy.py` keeps your answers in `deploy/<stack>.yaml`, where you can set every parameter on this page:

```yaml
AiSecretName: AWS Bedrock
AlarmEmail: on-call@example.com
ScheduleExpression: rate(15 minutes)
TimeoutSeconds: 120
```

Deploy the file with `python3 deploy.py --config deploy/<stack>.yaml`. [Install](deploy.md) describes the file, and
[Terraform](terraform.md) describes the module that takes the same parameters. Where a table shows no default, the
parameter is empty. `make docs` writes this page from `template.yaml`, `bedrock-role.yaml`, and `fleet.yaml`.

Other pages explain groups of parameters: [kinds of credentials](kinds.md) for `Kind` and what belongs to it,
[several targets](several-targets.md) for `Targets`, [network](network.md) for the proxy, the VPC, and the certificates,
[what your company requires](company.md), and [reports on an event bus](eventbridge.md) for `EventBusName`.
"""
COMBINATIONS = """\
### Combinations

CloudFormation and `deploy.py` refuse parameters that don't go together, with one of these messages:
"""
TEMPLATES = {
    "template.yaml": """\
## The rotator: `template.yaml`

Role-based kinds are `temporary` and `short_term_api_key`. User-based kinds are `access_key` and `long_term_api_key`.
""",
    "bedrock-role.yaml": """\
## A Bedrock role of your own: `bedrock-role.yaml`

This template creates the role that may call Bedrock, in the same account as the rotator or in another one.
[Install](deploy.md#use-a-role-of-your-own-or-in-another-account) describes the order of the steps.
""",
    "fleet.yaml": """\
## A fleet: `fleet.yaml`

This template rotates the targets in batches if there are too many for one invocation. [A fleet](fleet.md) describes the
order of the steps.
""",
}


def escaped(text):
    """Text for a cell of a Markdown table."""
    for character in "\\|*<":
        text = text.replace(character, "\\" + character)
    return text


def default(parameter):
    if "Default" not in parameter:
        return "required"
    return "" if parameter["Default"] == "" else f"`{parameter['Default']}`"


def accepted(parameter):
    """What CloudFormation accepts, as a sentence."""
    least, most = parameter.get("MinValue"), parameter.get("MaxValue")
    if "AllowedValues" in parameter:
        return "Accepted: {}.".format(", ".join(f"`{value}`" for value in parameter["AllowedValues"]))
    if "ConstraintDescription" in parameter:
        constraint = escaped(parameter["ConstraintDescription"]).rstrip(".")
        return f"{constraint[0].upper()}{constraint[1:]}."
    if most is not None:
        return f"Accepted: {least} to {most}."
    return "" if least is None else f"Accepted: {least} or more."


def rows(names, parameters):
    yield "| parameter | default | meaning |"
    yield "|---|---|---|"
    for name in names:
        parameter = parameters[name]
        meaning = [escaped(" ".join(parameter["Description"].split())), accepted(parameter)]
        yield f"| `{name}` | {default(parameter)} | {' '.join(filter(None, meaning))} |"


def refused_combinations(template):
    """What the template's rules say about parameters that don't go together."""
    for rule in template["Rules"].values():
        for assertion in rule["Assertions"]:
            text = escaped(" ".join(assertion["AssertDescription"].split()))
            yield textwrap.fill(text, 118, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)


def page():
    parts = [INTRODUCTION]
    for file, introduction in TEMPLATES.items():
        template = yaml_parse((ROOT / file).read_text())
        parts.append(introduction)
        for group in template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]:
            table = "\n".join(rows(group["Parameters"], template["Parameters"]))
            parts.append(f"### {group['Label']['default']}\n\n{table}\n")
        if "Rules" in template:
            parts.append(COMBINATIONS)
            parts.append("\n".join(refused_combinations(template)) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
