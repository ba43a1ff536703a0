"""What `make inventory` shows of the function's answer."""

import sys
from datetime import datetime, timezone

import pytest
from support.paths import ROOT

sys.path.append(str(ROOT / "tools"))
import inventory  # noqa: E402
from page import Page  # noqa: E402
from running_function import printable  # noqa: E402

NOW = datetime(2026, 1, 10, tzinfo=timezone.utc)
ID = "5f1c9a52-8f0e-4a53-9d3b-2f6f1a7c4e10"


def provider(**fields):
    shown = {
        "id": ID,
        "name": "AWS Bedrock",
        "api_url": "https://api.braintrust.dev",
        "organization": "8a6f0b1c-0000-4000-8000-000000000000",
        "organization_name": "Acme",
        "auth_type": "iam_credentials",
        "layout": "gateway",
        "access_key_id": "ASIAIOSFODNN7EXAMPLE",
        "region": "us-east-1",
        "secret_updated_at": "2026-01-09T23:00:00.123456789Z",
        "targets": ["prod"],
        "findings": [],
        **fields,
    }
    return {field: value for field, value in shown.items() if value is not None}


def finding(name, severity, providers):
    return {"finding": name, "severity": severity, "providers": providers, "meaning": f"What {name} means. Do this"}


def shown(*providers, findings=(), unknown=(), width=99):
    key = {"api_url": "https://api.braintrust.dev", "api_key_secret_id": "key", "unknown": list(unknown)}
    answer = {"providers": list(providers), "findings": list(findings), "api_keys": [key]}
    return inventory.inventory(answer, Page(width), NOW)


def test_each_provider_is_a_row():
    project = {"id": ID, "name": "support-bot"}
    unnamed = provider(organization_name=None)
    lines = shown(provider(), unnamed, provider(project=project, targets=[], region=None, secret_updated_at=None))
    assert lines[:4] == [
        "provider     where                credentials  region     secret changed  written by",
        "AWS Bedrock  Acme                 temporary    us-east-1  60 minutes ago  prod",
        "AWS Bedrock  org. 8a6f0b1c        temporary    us-east-1  60 minutes ago  prod",
        "AWS Bedrock  project support-bot  temporary    none       unknown         nobody",
    ]
    assert lines[-1] == "Nothing to fix now: 3 Bedrock providers, seen with 1 API key."


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"access_key_id": "AKIAIOSFODNN7EXAMPLE"}, "access key"),
        ({"access_key_id": None}, "none"),
        ({"auth_type": "api_key", "access_key_id": None}, "API key"),
        ({"auth_type": "assume_role", "access_key_id": None}, "assume role"),
        ({"auth_type": "web", "access_key_id": None}, "web"),
    ],
)
def test_the_credentials_are_named_as_people_know_them(fields, expected):
    assert f"  {expected}  " in shown(provider(**fields))[1]


def test_the_findings_come_first_with_the_providers_that_have_them():
    broken = [provider(name=f"number {n}", findings=["no_region"]) for n in range(7)]
    lines = shown(*broken, findings=[finding("no_region", "now", 7), finding("could_use_assume_role", "simpler", 7)])
    text = "\n".join(lines)
    assert '"number 0" of the organization "Acme" (' in text
    assert lines[0] == "Now: no region (7)" and "What no_region means. Do this." in text
    assert all(f'"number {n}"' in text for n in range(5)) and "and 2 more" in text
    assert text.index("What no_region means") < text.index("Could be simpler: could use assume role (7)")
    assert lines[-1].startswith("7 problems to fix now: ")


@pytest.mark.parametrize("width", [60, 99])
def test_a_name_with_a_line_break_forges_no_line(width):
    forged = "Nothing to fix now: 0 Bedrock providers"
    text = f"x\n{forged}\r\n{forged}"
    named = provider(name=text, region=text, auth_type=text, project={"id": ID, "name": text}, findings=["no_region"])
    lines = shown(printable(named), findings=[finding("no_region", "now", 1)], width=width)
    assert not any(line.startswith(forged) for line in "\n".join(lines).splitlines())


def test_a_provider_whose_writer_is_not_known_is_not_shown_as_nobodys():
    assert shown(provider(targets=[], possible_targets=["prod"]))[1].endswith("  unknown")


def test_what_was_not_read_is_in_the_verdict():
    one, two = [{"what": "the projects"}], [{"what": "the projects"}, {"what": "the ai_secrets"}]
    seen = "0 Bedrock providers, seen with 1 API key."
    assert shown(unknown=one)[-1] == f"Nothing to fix now, but 1 thing was not read: {seen}"
    broken = {"findings": [finding("no_region", "now", 1)]}
    text = " ".join(shown(provider(findings=["no_region"]), unknown=two, **broken)[-2:])
    assert text.endswith("1 problem to fix now, and 2 things were not read: 1 Bedrock provider, seen with 1 API key.")


def test_what_could_not_be_read_is_shown_with_the_reason():
    error = {"class": "permission", "service": "braintrust", "call": "GET /v1/project", "problem": "answered 403"}
    text = " ".join(shown(unknown=[{"what": "the projects", "error": {**error, "remedy": "Use another key"}}]))
    for part in ("Unknown: Not read: the projects.", "key", "answered 403", "Use another key."):
        assert part in text


@pytest.mark.parametrize("width", [40, 80, 99, 140])
def test_no_line_is_wider_than_the_page_or_100_columns(width):
    long = "a name of many words " * 9
    project = {"id": ID, "name": long}
    providers = [provider(name=long, project=project, auth_type="x" * 100, region="r" * 100, targets=["t" * 48] * 3)]
    providers.append(provider(findings=["no_region"]))
    lines = shown(*providers, findings=[finding("no_region", "now", 1)], width=width)
    fits = [line for line in lines if len(line) <= min(width, 99) or " " not in line.strip()]
    # One word alone may be longer than a narrow page, and an ID in parentheses is one.
    assert len(fits) == len(lines) or width == 40, [line for line in lines if line not in fits]
