"""The table of AWS's error codes has every code that the models of AWS's SDK declare for the function's calls."""

import json
import re
from pathlib import Path

import botocore.session
from botocore import xform_name
from support.paths import ROOT

TABLE = json.loads((ROOT / "tests/vectors/aws_error_codes.json").read_text())
# The calls that the function makes without the SDK.
WITHOUT_SDK = {
    "bedrock": {"ListFoundationModels"},
    "bedrock-runtime": {"Converse"},
    "s3": {"GetObject"},
    "sts": {"AssumeRole"},
}
# The models of the JSON protocols omit the default status.
DEFAULT_STATUS = {"InternalServiceError": 500}


def called(service, model) -> set[str]:
    """The operations of a service that the function calls."""
    source = "".join(file.read_text() for file in Path(ROOT / "src/aws").rglob("*.rs"))
    with_sdk = {name for name in model.operation_names if re.search(rf"\.{xform_name(name)}\(\)", source)}
    return with_sdk | WITHOUT_SDK.get(service, set())


def declared(service) -> dict[tuple[str, int], set[str]]:
    """The operations that declare each code and status."""
    model = botocore.session.get_session().get_service_model(service)
    codes: dict[tuple[str, int], set[str]] = {}
    for name in called(service, model):
        for shape in model.operation_model(name).error_shapes:
            error = shape.metadata.get("error", {})
            status = error.get("httpStatusCode", DEFAULT_STATUS.get(shape.name, 400))
            codes.setdefault((error.get("code", shape.name), status), set()).add(name)
    return codes


def test_the_table_has_every_code_that_aws_declares_for_the_calls_of_the_function():
    for service in ("iam", "secretsmanager", *WITHOUT_SDK):
        rows = [row for row in TABLE["declared"] if row["service"] == service]
        assert {(row["code"], row["status"]): set(row["operations"]) for row in rows} == declared(service), service
