"""Checks the function's requests, and the local Braintrust's answers to them, against Braintrust's specification.

The specification isn't part of the project. It is read from `../shared/openapi/braintrust.json` beside the checkout, or
from the path in BRAINTRUST_OPENAPI.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

from jsonschema import Draft202012Validator, FormatChecker

from .http_messages import RecordedRequest, Reply
from .paths import ROOT

SPECIFICATION = Path(os.environ.get("BRAINTRUST_OPENAPI", ROOT.parent / "shared/openapi/braintrust.json"))
_FUNCTION = "bedrock-braintrust-rotator/"
# The specification doesn't describe the AI proxy, and a shortened copy may lack the organizations:
# https://www.braintrust.dev/docs/api-reference/organizations/list-organizations
_NOT_DESCRIBED = ("/v1/proxy/", "/v1/organization")
_formats = FormatChecker(["uuid"])
_formats.checks("date-time", ValueError)(lambda value: not isinstance(value, str) or datetime.fromisoformat(value))


@cache
def openapi() -> "BraintrustOpenApi | None":
    """None if the specification isn't there."""
    return BraintrustOpenApi(json.loads(SPECIFICATION.read_text())) if SPECIFICATION.exists() else None


@dataclass(frozen=True)
class _Operation:
    parameters: dict[tuple[str, str], dict]
    body: dict | None
    answers: dict[str, dict]


class BraintrustOpenApi:
    def __init__(self, specification: dict):
        self.checked = 0
        self._components = specification["components"]
        self._definitions = {"components": _as_json_schema(self._components)}
        # The specification's paths begin with /v1, like those of the requests.
        self._paths = [
            (re.compile(re.sub(r"\{[^}]+\}", "([^/]+)", path)), re.findall(r"\{([^}]+)\}", path), item)
            for path, item in specification["paths"].items()
        ]

    def violations(self, request: RecordedRequest, answer: Reply) -> list[str]:
        """Empty for the requests of other clients than the function."""
        if _FUNCTION not in request.headers.get("user-agent", "") or request.path.startswith(_NOT_DESCRIBED):
            return []
        self.checked += 1
        return [f"{request.call}: {violation}" for violation in self._violations(request, answer)]

    def _violations(self, request: RecordedRequest, answer: Reply) -> Iterator[str]:
        for pattern, names, item in self._paths:
            if found := pattern.fullmatch(request.path):
                if operation := item.get(request.method.lower()):
                    operation = self._operation(operation)
                    yield from self._in_request(request, operation, dict(zip(names, found.groups(), strict=True)))
                    yield from self._in_answer(answer, operation)
                    return
        yield "the specification has no such operation"

    def _in_request(self, request: RecordedRequest, operation: _Operation, in_path: dict[str, str]) -> Iterator[str]:
        given = {("path", name): [value] for name, value in in_path.items()}
        given |= {("query", name): values for name, values in request.query.items()}
        for key, values in given.items():
            if key not in operation.parameters:
                yield f"the parameter {key[1]} is unknown"
            else:
                # Parameters are strings. The schemas say which of them are numbers.
                values = [int(value) if value.isdigit() else value for value in values]
                schema = operation.parameters[key]
                if not any(not list(self._invalid(value, schema)) for value in (values[0], values)):
                    yield f"the parameter {key[1]} is invalid"
        if operation.body is None:
            if request.body:
                yield "the request has a body"
            return
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            yield "the request's content type is not application/json"
        body = request.json()
        yield from (f"the request's {line}" for line in self._invalid(body, operation.body))
        known = self._resolved(operation.body).get("properties", {})
        yield from (f"the request's field {name} is unknown" for name in body if name not in known)

    def _in_answer(self, answer: Reply, operation: _Operation) -> Iterator[str]:
        # Missing objects are answered with 404, too.
        if str(answer.status) not in {*operation.answers, "404", "503"}:
            yield f"the answer's status {answer.status} is not declared"
        if answer.status == 200:
            if answer.content_type.partition(";")[0] != "application/json":
                yield "the answer's content type is not application/json"
            yield from (
                f"the answer's {line}" for line in self._invalid(json.loads(answer.body), operation.answers["200"])
            )

    def _operation(self, operation: dict) -> _Operation:
        parameters = [self._parameter(parameter) for parameter in operation.get("parameters", [])]
        answers = {
            status: answer.get("content", {}).get("application/json", {}).get("schema", {})
            for status, answer in operation["responses"].items()
        }
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
        return _Operation({(p["in"], p["name"]): p["schema"] for p in parameters}, body, answers)

    def _parameter(self, parameter: dict) -> dict:
        name = parameter.get("$ref", "").rpartition("/")[2]
        return self._components["parameters"][name] if name else parameter

    def _resolved(self, schema: dict) -> dict:
        return self._components["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema

    def _invalid(self, value, schema: dict) -> Iterator[str]:
        """Never shows a value, because it may be a secret."""
        validator = Draft202012Validator(_as_json_schema(schema) | self._definitions, format_checker=_formats)
        for error in validator.iter_errors(value):
            yield f"{error.json_path} breaks the rule {error.validator}"


def _as_json_schema(schema):
    """OpenAPI 3.0 writes `nullable` where JSON Schema has the type `null`."""
    if isinstance(schema, list):
        return [_as_json_schema(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    converted = {name: _as_json_schema(part) for name, part in schema.items() if name != "nullable"}
    if schema.get("nullable") is True and converted:
        return {"anyOf": [converted, {"type": "null"}]}
    return converted
