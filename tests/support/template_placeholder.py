"""The value with which the template creates its staged secret."""

from samcli.yamlhelper import yaml_parse

from .paths import ROOT

TEMPLATE_PLACEHOLDER = yaml_parse((ROOT / "template.yaml").read_text())["Resources"]["StagedSecret"]["Properties"][
    "SecretString"
]
