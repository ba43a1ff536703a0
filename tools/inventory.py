"""Shows the answer to the action `inventory`. Pure: it gets the time and the page.

First the findings, in the order of importance, each with its providers; then all providers; then what could not be
read.
"""

from answers import WIDEST, count, error, when
from page import BOLD, GREEN, RED, YELLOW

SEVERITIES = {
    "now": ("Now", RED),
    "soon": ("Soon", YELLOW),
    "hygiene": ("Hygiene", YELLOW),
    "simpler": ("Could be simpler", GREEN),
}
# More names than this would hide the findings that follow.
MOST_NAMES = 5
# With two spaces between them, the widest columns fill the widest page.
WIDEST_COLUMNS = {"provider": 20, "where": 19, "credentials": 11, "region": 14, "secret changed": 14, "written by": 11}
COLUMNS = tuple(WIDEST_COLUMNS)
AUTH_TYPES = {"api_key": "API key", "assume_role": "assume role"}


def inventory(answer, page, now):
    page = page.at_most(WIDEST)
    lines = []
    for finding in answer["findings"]:
        lines += _finding(finding, answer["providers"], page)
    if answer["providers"]:
        lines += _table(answer["providers"], page, now)
    for key in answer["api_keys"]:
        lines += _unknown(key, page)
    return [*lines, *page.paragraph(verdict(answer, page))]


def _finding(finding, providers, page):
    title, color = SEVERITIES.get(finding["severity"], (finding["severity"], YELLOW))
    name = finding["finding"].replace("_", " ")
    lines = page.paragraph("{}: {} ({})".format(page.paint(title, color), name, finding["providers"]), "  ", "")
    if finding["severity"] != "simpler":
        named = [_named(provider) for provider in providers if finding["finding"] in provider["findings"]]
        more = [f"and {len(named) - MOST_NAMES} more"] if len(named) > MOST_NAMES else []
        lines += page.paragraph("; ".join(named[:MOST_NAMES] + more), "  ")
    return [*lines, *page.paragraph(finding["meaning"] + ".", "  "), ""]


def _named(provider):
    where = ""
    if "project" in provider:
        where = 'of the project "{}" '.format(provider["project"]["name"])
    elif "organization_name" in provider:
        where = 'of the organization "{}" '.format(provider["organization_name"])
    return '"{}" {}({})'.format(provider["name"], where, provider["id"])


def _where(provider):
    if "project" in provider:
        return "project " + provider["project"]["name"]
    if "organization_name" in provider:
        return provider["organization_name"]
    return "org. " + provider["organization"][:8] if "organization" in provider else "-"


def _table(providers, page, now):
    rows = [COLUMNS, *(_row(provider, now) for provider in providers)]
    rows = [[_cut(cell, width) for cell, width in zip(row, WIDEST_COLUMNS.values(), strict=True)] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if sum(widths) + 2 * (len(widths) - 1) > page.width:
        return _blocks(providers, page, now)
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [page.paint(lines[0], BOLD), *lines[1:], ""]


def _blocks(providers, page, now):
    """For a page that is too narrow for the table."""
    lines = []
    for provider in providers:
        name, *facts = _row(provider, now)
        named = [f"{column}: {fact}" for column, fact in zip(COLUMNS[1:], facts, strict=True)]
        lines += [page.paint(_cut(name, page.width), BOLD), *page.paragraph(", ".join(named), "  ")]
    return [*lines, ""]


def _row(provider, now):
    targets, nobody = provider["targets"], "unknown" if "possible_targets" in provider else "nobody"
    return (
        provider["name"],
        _where(provider),
        _credentials(provider),
        provider.get("region", "none"),
        when(_to_the_second(provider["secret_updated_at"]), now) if "secret_updated_at" in provider else "unknown",
        targets[0] + (f" and {len(targets) - 1}" if len(targets) > 1 else "") if targets else nobody,
    )


def _credentials(provider):
    auth_type = provider["auth_type"]
    if auth_type != "iam_credentials":
        return AUTH_TYPES.get(auth_type, auth_type)
    if "access_key_id" not in provider:
        return "none"
    return "temporary" if provider["access_key_id"].startswith("ASIA") else "access key"


def _to_the_second(time):
    # Before Python 3.11, fromisoformat accepts only fractions of three or six digits.
    return time[:19] + "Z"


def _cut(text, width):
    return text if len(text) <= width else text[: width - 1] + "…"


def _unknown(key, page):
    lines = []
    for unknown in key.get("unknown", []):
        lines += page.paragraph("Not read: {}.".format(unknown["what"]), "  ", page.paint("Unknown", YELLOW) + ": ")
        lines += page.paragraph("With the API key in {}, at {}.".format(key["api_key_secret_id"], key["api_url"]), "  ")
        if "error" in unknown:
            lines += error(unknown["error"], page, "  ")
    return [*lines, ""] if lines else []


def verdict(answer, page):
    now = sum(finding["providers"] for finding in answer["findings"] if finding["severity"] == "now")
    not_read = sum(len(key.get("unknown", [])) for key in answer["api_keys"])
    state = count(now, "problem") + " to fix now" if now else "Nothing to fix now"
    if not_read:
        were = "thing was" if not_read == 1 else "things were"
        state += f", {'and' if now else 'but'} {not_read} {were} not read"
    state = page.paint(state, RED if now else YELLOW if not_read else GREEN)
    seen = [count(len(answer["providers"]), "Bedrock provider"), count(len(answer["api_keys"]), "API key")]
    return "{}: {}, seen with {}.".format(state, *seen)
