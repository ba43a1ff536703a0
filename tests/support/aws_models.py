"""Checks the function's requests against AWS's own models of its services, which botocore contains.

This includes what botocore's own validation leaves to AWS: patterns, enumerations, maximum lengths, and the encoding
of the query protocol.
"""

import json
import re
from collections.abc import Callable, Iterator
from functools import cache

from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StringShape, StructureShape

from .http_messages import RecordedRequest
from .upstream import form, signer

# How the function calls itself, with and without the SDK.
_FUNCTION = ("aws-sdk-rust/", "bedrock-braintrust-rotator/")
_NUMBERS = ("integer", "long")
# The Java syntax in the models' patterns, as Python writes it.
_NOT_IN_PYTHON = {
    r"\p{L}": r"\w",
    r"\p{N}": r"\d",
    r"\p{Z}": r"\s",
    r"\u10000-\u10FFFF": r"\U00010000-\U0010FFFF",
}


class AwsModels:
    """`model_of` returns botocore's model of a service, such as `iam`."""

    def __init__(self, model_of: Callable[[str], ServiceModel]):
        self.checked = 0
        self._model_of = cache(model_of)

    def violations(self, request: RecordedRequest) -> list[str]:
        """What the model doesn't allow in a request that the function sent. Empty for the requests of other clients."""
        service, sender = signer(request)[2], request.headers.get("user-agent", "")
        if not any(name in sender for name in _FUNCTION) or service not in ("iam", "secretsmanager", "sts"):
            return []
        self.checked += 1
        model, name = self._model_of(service), request.call.partition(":")[2]
        if name not in model.operation_names:
            return [f"{request.call}: there is no such operation"]
        operation = model.operation_model(name)
        found = _in_json(request, operation) if model.protocol == "json" else _in_query(request, operation)
        return [f"{request.call}: {violation}" for violation in found]


def _in_json(request: RecordedRequest, operation: OperationModel) -> Iterator[str]:
    expected = f"application/x-amz-json-{operation.service_model.metadata['jsonVersion']}"
    if request.headers.get("content-type") != expected:
        yield f"the content type is not {expected}"
    target = f"{operation.service_model.metadata['targetPrefix']}.{operation.name}"
    if request.headers.get("x-amz-target") != target:
        yield f"x-amz-target is not {target}"
    yield from _structure(request.json(), operation.input_shape, "")


def _in_query(request: RecordedRequest, operation: OperationModel) -> Iterator[str]:
    if request.method != "POST" or request.query:
        yield "the parameters are not in the body of a POST"
    parameters = form(request)
    if parameters.pop("Version", None) != operation.service_model.api_version:
        yield f"Version is not {operation.service_model.api_version}"
    parameters.pop("Action")
    if operation.input_shape:
        value = _take(parameters, operation.input_shape, "")
        yield from _structure(value or {}, operation.input_shape, "")
    yield from (f"{name} is unknown" for name in parameters)


def _take(parameters: dict[str, str], shape: Shape, name: str):
    """Removes the parameters of this shape, and returns its value, or None if there are none."""
    if isinstance(shape, StructureShape):
        prefix = f"{name}." if name else ""
        members = {
            member: _take(parameters, inner, prefix + inner.serialization.get("name", member))
            for member, inner in shape.members.items()
        }
        return {member: value for member, value in members.items() if value is not None} or None
    if isinstance(shape, ListShape):
        taken, prefix = [], name if shape.serialization.get("flattened") else f"{name}.member"
        while (value := _take(parameters, shape.member, f"{prefix}.{len(taken) + 1}")) is not None:
            taken.append(value)
        # An empty list is sent as an empty parameter.
        return taken or ([] if parameters.pop(name, None) == "" else None)
    value = parameters.pop(name, None)
    if value is None:
        return None
    if shape.type_name in _NUMBERS:
        return int(value) if re.fullmatch(r"-?\d+", value) else value
    return {"true": True, "false": False}.get(value, value) if shape.type_name == "boolean" else value


def _structure(value, shape: StructureShape, name: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{name or 'the body'} is not a structure"
        return
    yield from (f"{name}.{member} is missing" for member in shape.required_members if member not in value)
    for member, inner in value.items():
        if member not in shape.members:
            yield f"{name}.{member} is unknown"
        else:
            yield from _violations(inner, shape.members[member], f"{name}.{member}")


def _violations(value, shape: Shape, name: str) -> Iterator[str]:
    """Never shows a value, because it may be a secret."""
    match shape:
        case StructureShape():
            yield from _structure(value, shape, name)
        case ListShape():
            if not isinstance(value, list):
                yield f"{name} is not a list"
                return
            yield from _range(len(value), shape, name)
            for number, member in enumerate(value):
                yield from _violations(member, shape.member, f"{name}[{number}]")
        case MapShape():
            if not isinstance(value, dict):
                yield f"{name} is not a map"
                return
            for key, member in value.items():
                yield from _violations(key, shape.key, f"{name}'s key")
                yield from _violations(member, shape.value, f"{name}'s value")
        case StringShape():
            if not isinstance(value, str):
                yield f"{name} is not a string"
                return
            yield from _range(len(value), shape, name)
            if shape.enum and value not in shape.enum:
                yield f"{name} is none of {shape.enum}"
            if not _fits(shape.metadata.get("pattern"), value):
                yield f"{name} doesn't match {shape.metadata['pattern']}"
        case _:
            yield from _scalar(value, shape, name)


def _scalar(value, shape: Shape, name: str) -> Iterator[str]:
    if shape.type_name in _NUMBERS:
        if not isinstance(value, int) or isinstance(value, bool):
            yield f"{name} is not a whole number"
            return
        yield from _range(value, shape, name)
    elif shape.type_name == "boolean" and not isinstance(value, bool):
        yield f"{name} is not a boolean"


def _range(number: int, shape: Shape, name: str) -> Iterator[str]:
    smallest, largest = shape.metadata.get("min"), shape.metadata.get("max")
    if smallest is not None and number < smallest or largest is not None and number > largest:
        yield f"{name} is not between {smallest} and {largest}: {number}"


def _fits(pattern: str | None, value: str) -> bool:
    return pattern is None or _compiled(pattern).fullmatch(value) is not None


@cache
def _compiled(pattern: str) -> re.Pattern:
    for theirs, ours in _NOT_IN_PYTHON.items():
        pattern = pattern.replace(theirs, ours)
    return re.compile(pattern)
