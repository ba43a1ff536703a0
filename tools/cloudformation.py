"""Prints template.yaml as a plain CloudFormation template in JSON, which needs neither sam nor a transform.

The parameters CodeBucket and CodeKey say where in S3 the code is. Everything else is as in template.yaml.
"""

import json
import sys
import tomllib

import environment
from environment import ROOT
from samcli.yamlhelper import yaml_parse
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

INTERFACE = "AWS::CloudFormation::Interface"
FUNCTION = "RotatorFunction"
PARAMETERS = {
    "CodeBucket": {
        "Description": "The S3 bucket, in the stack's region, that has the function's zip file.",
        "Type": "String",
        "AllowedPattern": "^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
        "ConstraintDescription": "must be a bucket's name",
    },
    "CodeKey": {
        "Description": (
            "The zip file's key in CodeBucket. Choose another key for each version, because CloudFormation updates the "
            "function only if a parameter changes."
        ),
        "Type": "String",
        "AllowedPattern": r"^[A-Za-z0-9!_.*'()/+=@:-]{1,1024}$",
        "ConstraintDescription": "must be the key of an object in S3",
    },
    "Architecture": {
        "Description": "The architecture that the zip file was built for.",
        "Type": "String",
        "Default": "x86_64",
        "AllowedValues": ["x86_64", "arm64"],
    },
}


def version():
    return tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]


def plain_template():
    """The template as JSON; the same text for the same template.yaml and version."""
    template = yaml_parse((ROOT / "template.yaml").read_text())
    properties = template["Resources"][FUNCTION]["Properties"]
    properties["CodeUri"] = {"Bucket": {"Ref": "CodeBucket"}, "Key": {"Ref": "CodeKey"}}
    properties["Architectures"] = [{"Ref": "Architecture"}]
    parameters = template["Parameters"] | PARAMETERS
    # Without defaults, because the translator would put those in the place of some references.
    template["Parameters"] = {name: _without(parameter, "Default") for name, parameter in parameters.items()}
    plain = Translator({}, Parser()).translate(template, {})
    plain["Parameters"] = parameters
    plain["Metadata"] = {"Version": version(), INTERFACE: _interface(plain["Metadata"][INTERFACE])}
    own = template["Resources"]
    plain["Resources"] = {name: _cleaned(resource, name in own) for name, resource in plain["Resources"].items()}
    return json.dumps(plain, indent=1, ensure_ascii=False) + "\n"


def _interface(interface):
    code = {"Label": {"default": "Code"}, "Parameters": list(PARAMETERS)}
    return interface | {"ParameterGroups": [*interface["ParameterGroups"], code]}


def _cleaned(resource, is_own):
    """The resource without what only sam uses: its metadata, and its tag on the function.

    The reasons for which checkov skips rules stay, for companies that check templates before they deploy them. The
    translator also copies them to the resources that it adds.
    """
    kept = {"checkov"} if is_own else set()
    metadata = {name: value for name, value in resource.get("Metadata", {}).items() if name in kept}
    tags = [tag for tag in resource.get("Properties", {}).get("Tags", []) if tag["Key"] != "lambda:createdBy"]
    cleaned = _without(resource, "Metadata") | ({"Metadata": metadata} if metadata else {})
    if "Tags" in resource.get("Properties", {}):
        cleaned["Properties"] = _without(resource["Properties"], "Tags") | ({"Tags": tags} if tags else {})
    return cleaned


def _without(mapping, *names):
    return {name: value for name, value in mapping.items() if name not in names}


if __name__ == "__main__":
    environment.prepare()
    sys.stdout.write(plain_template())
