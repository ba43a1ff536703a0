"""Remembers which checks have passed on which inputs, so that a check is skipped until one of its inputs changes."""

import hashlib

from environment import ROOT

FOLDER = ROOT / ".tools/passed"


class Check:
    """A check that depends only on its command and on `inputs`, which are paths from the root of the repository."""

    def __init__(self, name, command, inputs):
        self.file = FOLDER / name
        contents = (hashlib.sha256((ROOT / path).read_bytes()).hexdigest() for path in inputs)
        self.digest = hashlib.sha256("\n".join([*map(str, command), *inputs, *contents]).encode()).hexdigest()

    def has_passed(self):
        return self.file.is_file() and self.file.read_text() == self.digest

    def remember(self):
        FOLDER.mkdir(parents=True, exist_ok=True)
        self.file.write_text(self.digest)
