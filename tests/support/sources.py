"""What the documents must agree with: the templates, the schema of the targets, and the Rust sources."""

import json
import re

from samcli.yamlhelper import yaml_parse

from .paths import ROOT

TEMPLATES = [yaml_parse((ROOT / file).read_text()) for file in ("template.yaml", "bedrock-role.yaml", "fleet.yaml")]
PARAMETERS = TEMPLATES[0]["Parameters"]
TARGETS_SCHEMA = json.loads((ROOT / "docs/targets.schema.json").read_text())
# The names of the metrics.
METRICS = sorted(
    set(re.findall(r'"([A-Z][A-Za-z]+)", "(?:Count|Seconds|Milliseconds)"', (ROOT / "src/metrics.rs").read_text()))
)


def variables() -> set[str]:
    """The environment variables that the function reads itself."""
    source = (ROOT / "src/config.rs").read_text().partition("#[cfg(test)]\nmod tests")[0]
    return set(re.findall(r'"([A-Z]+(?:_[A-Z0-9]+)+|TARGETS)"', source))


def variants(file: str, enum: str) -> list[str]:
    """The variants of a Rust enum, as JSON has them."""
    body = re.search(rf"pub enum {enum} {{(.*?)^}}", (ROOT / file).read_text(), re.MULTILINE | re.DOTALL)[1]
    names = re.findall(r"^    (\w+),$", body, re.MULTILINE)
    return sorted(re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower() for name in names)
