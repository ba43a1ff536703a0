"""Prints the notes of the release VERSION: its section of CHANGELOG.md.

    release_notes.py VERSION

Exits with status 1 unless Cargo.toml has the same version.
"""

import re
import sys
import tomllib

from environment import ROOT


def section(changelog, version):
    """The text below the heading `## 1.2.3 - date`, or None."""
    pattern = rf"^## \[?{re.escape(version)}\]?( - [^\n]*)?$\n(.*?)(?=^## |\Z)"
    found = re.search(pattern, changelog, flags=re.MULTILINE | re.DOTALL)
    return found and found[2].strip()


def main():
    [wanted] = sys.argv[1:]
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    if wanted != version:
        remedy = f"Tag a commit that has the tag's version, or use the tag v{version}."
        sys.exit(f"Cargo.toml has the version {version}, not {wanted}. {remedy}")
    notes = section((ROOT / "CHANGELOG.md").read_text(), version)
    if not notes:
        sys.exit(f'CHANGELOG.md has no section for {version}. Rename "Unreleased" to "{version} - YYYY-MM-DD".')
    print(notes)


main()
