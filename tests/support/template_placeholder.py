"""The value with which the template creates its staged secret."""

import re

from .paths import ROOT

# Parsing all of the YAML would take half a second in each process of the tests.
[TEMPLATE_PLACEHOLDER] = re.findall(
    r"^  StagedSecret:\n(?:   .*\n)*?      SecretString: '(.*)'\n", (ROOT / "template.yaml").read_text(), re.MULTILINE
)
