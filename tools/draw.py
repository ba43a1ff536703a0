"""Draws the pictures of the documents into docs/pictures.

    draw.py [tour|hour|resources|dashboard ...]

`hour` and `resources` come from template.yaml alone. `tour` runs `make run` and what follows it in a terminal, and also
draws `make run` alone. `dashboard` needs a day of scheduled runs on the local stack. Without a name, all are drawn.
"""

import importlib
import sys

import environment
from environment import ROOT
from pictures.files import save
from pictures.template import Template
from step import exit_on_signals

sys.path.insert(0, str(ROOT / "tests"))  # the pictures need tests/support

PICTURES = ("hour", "resources", "dashboard", "tour")


def main():
    names = sys.argv[1:] or PICTURES
    unknown = [name for name in names if name not in PICTURES]
    if unknown:
        sys.exit(f"There is no picture {', '.join(unknown)}. The pictures are {', '.join(PICTURES)}.")
    environment.prepare()
    exit_on_signals()
    template = Template(ROOT / "template.yaml")
    for name in names:
        for file, picture in importlib.import_module(f"pictures.{name}").draw(template).items():
            save(ROOT / "docs/pictures" / file, picture)
            print(f"docs/pictures/{file}")


main()
