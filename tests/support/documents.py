"""Reads the project's Markdown documents: their headings, links, tables, and pieces of code."""

import re
from pathlib import Path

from .paths import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "bench").glob("*.md")])
_FOR_MAINTAINERS = ("development.md", "release.md")
# What a user reads.
README = ROOT / "README.md"
PAGES = [README]
PAGES += [path for path in sorted((ROOT / "docs").glob("*.md")) if path.name not in _FOR_MAINTAINERS]
_FENCE = re.compile(r"^ *```([^\n]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
_LINK = re.compile(r"\[[^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)?\]\(([^()\s]+)\)")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def fences(path: Path) -> list[tuple[str, str]]:
    """The language and the text of each block of code."""
    return _FENCE.findall(path.read_text())


def blocks(path: Path, language: str) -> list[str]:
    return [text for found, text in fences(path) if found == language]


def prose(path: Path) -> str:
    """The document without its blocks of code."""
    return _FENCE.sub("", path.read_text())


def code_spans(text: str) -> list[str]:
    """The pieces of code within a text, on one line each."""
    return [" ".join(code.split()) for _, code in _CODE.findall(text)]


def links(path: Path) -> list[str]:
    return _LINK.findall(_CODE.sub("code", prose(path)))


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    texts = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", text).replace(" ", "-") for text in texts}


def tables(path: Path) -> dict[str, list[list[str]]]:
    """The rows of the tables below each heading, without their first rows."""
    found, heading, previous = {}, "", ""
    for line in prose(path).splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        is_row = line.startswith("|")
        if is_row and previous.startswith("|") and not set(line) <= set("|- :"):
            cells = re.split(r"(?<!\\)\|", line.strip("|"))
            found.setdefault(heading, []).append([cell.strip() for cell in cells])
        previous = line
    return found


def commands(path: Path, program: str) -> list[str]:
    """The commands of this program, in blocks and within the text, on one line each."""
    lines = [line for text in blocks(path, "sh") for line in text.replace("\\\n", " ").splitlines()]
    candidates = [line.strip() for line in lines] + code_spans(prose(path))
    return [candidate for candidate in candidates if candidate.startswith(program + " ")]
