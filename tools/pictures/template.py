"""Reads `template.yaml` with the default values of its parameters."""

import re
from pathlib import Path

import yaml


class Template:
    def __init__(self, path: Path, **parameters: str):
        """`parameters` are the values of those that don't have their default."""
        self._template = yaml.load(path.read_text(), _Loader)
        defaults = {name: parameter.get("Default", "") for name, parameter in self._template["Parameters"].items()}
        self.parameters = defaults | parameters
        self.resources = self._template["Resources"]

    def properties(self, resource: str) -> dict:
        """The resource's properties, where references to other resources are their logical IDs."""
        return self.value(self.resources[resource].get("Properties", {}))

    def of_type(self, type: str) -> list[str]:
        return [name for name, resource in self.resources.items() if resource["Type"] == type]

    def find(self, property: str) -> list:
        """The values of this property, wherever it is in the resources that exist."""
        return _find([self.properties(name) for name in self.resources if self.exists(name)], property)

    def exists(self, resource: str) -> bool:
        condition = self.resources[resource].get("Condition")
        return condition is None or self.value(self._template["Conditions"][condition])

    def decided_by(self, resource: str) -> list[str]:
        """The parameters that decide whether the resource exists."""
        names = self._mentioned({"Condition": self.resources[resource].get("Condition")})
        return [name for name in self.parameters if name in names]

    def mentions(self, resource: str) -> set[str]:
        """The other resources that this one mentions, also those under conditions."""
        return self._mentioned(self.resources[resource].get("Properties")) & set(self.resources) - {resource}

    def value(self, node):
        match node:
            case {"Ref": name}:
                return None if name == "AWS::NoValue" else self.parameters.get(name, name)
            case {"Condition": str(name), **rest} if not rest:
                return self.value(self._template["Conditions"][name])
            case {"Fn::If": [name, yes, no]}:
                return self.value(yes if self.value({"Condition": name}) else no)
            case {"Fn::Equals": [left, right]}:
                return str(self.value(left)) == str(self.value(right))
            case {"Fn::Not": [condition]}:
                return not self.value(condition)
            case {"Fn::And": conditions}:
                return all(map(self.value, conditions))
            case {"Fn::Or": conditions}:
                return any(map(self.value, conditions))
            case {"Fn::Join": [separator, parts]}:
                parts = self.value(parts)
                return parts if isinstance(parts, str) else separator.join(map(str, parts))
            case {"Fn::Sub": [pattern, own]}:
                return self._substituted(pattern, self.value(own))
            case {"Fn::Sub": pattern}:
                return self._substituted(pattern, {})
            case dict():
                values = {name: self.value(inner) for name, inner in node.items()}
                return {name: value for name, value in values.items() if value is not None}
            case list():
                return [value for value in map(self.value, node) if value is not None]
        return node

    def _substituted(self, pattern, own):
        known = self.parameters | own
        return re.sub(r"\$\{([^}!]+)\}", lambda name: str(known.get(name[1], name[1])), pattern)

    def _mentioned(self, node) -> set[str]:
        """All names in intrinsic functions and conditions, whichever branch would be taken."""
        match node:
            case {"Condition": str(name), **rest} if not rest:
                return self._mentioned(self._template["Conditions"][name])
            case {"Ref": str(name)}:
                return {name}
            case {"Fn::GetAtt": name}:
                return {name.partition(".")[0] if isinstance(name, str) else name[0]}
            case {"Fn::Sub": pattern}:
                more = self._mentioned(pattern[1]) if isinstance(pattern, list) else set()
                pattern = pattern[0] if isinstance(pattern, list) else pattern
                return more | {name.partition(".")[0] for name in re.findall(r"\$\{([^}!]+)\}", pattern)}
            case dict():
                return set().union(*map(self._mentioned, node.values()))
            case list():
                return set().union(*map(self._mentioned, node))
        return set()


def _find(node, property):
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    found = [node[property]] if isinstance(node, dict) and property in node else []
    return found + [value for child in inner for value in _find(child, property)]


class _Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms, such as !Ref, as their long forms."""


def _long_form(loader, tag, node):
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {tag if tag in ("Ref", "Condition") else f"Fn::{tag}": value}


_Loader.add_multi_constructor("!", _long_form)
