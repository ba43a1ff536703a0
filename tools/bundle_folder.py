"""The folder of a release bundle: it appears complete or not at all, with the hashes of its files in SHA256SUMS."""

import hashlib
import sys
import tempfile
from pathlib import Path

SUMS = "SHA256SUMS"


def replace(folder, write):
    """Has `write` fill a new folder, adds its SHA256SUMS, and puts it in the place of `folder`."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        new, old = Path(temporary) / "new", Path(temporary) / "old"
        new.mkdir()
        write(new)
        (new / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in digests(new).items()))
        if folder.exists():
            folder.rename(old)
        new.rename(folder)


def digests(folder):
    files = sorted(path for path in folder.iterdir() if path.name != SUMS)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def checked_digests(folder):
    """The files' hashes; exits if they aren't those in SHA256SUMS."""
    lines = (folder / SUMS).read_text().splitlines()
    expected = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    found = digests(folder)
    differing = sorted(name for name in expected | found if expected.get(name) != found.get(name))
    if differing:
        sys.exit(f"{folder} doesn't match its {SUMS}: {', '.join(differing)}")
    return found
