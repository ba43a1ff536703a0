"""Starts ministack with additions that the server in front of it needs.

With two headers, which signatures don't cover, a request asks only for IAM's decision, and passes condition keys that
ministack doesn't know. Only the server in front of ministack may send them. CloudFormation gets
AWS::SecretsManager::RotationSchedule, and Fn::Join in conditions. Policies that demand TLS are satisfied, although the
local AWS has none. This runs in ministack's own Python environment.
"""

import contextvars
import ctypes
import json
import os
import signal
import sys
import urllib.request

import hypercorn.asyncio
from ministack import app
from ministack.core import iam_actions, iam_evaluator
from ministack.services import secretsmanager
from ministack.services.cloudformation import changesets, engine, handlers, provisioners, stacks

# At the end of the path, so that no module of this folder hides another one.
sys.path.append(os.path.dirname(__file__))
import asgi_server  # noqa: E402
import ministack_destinations  # noqa: E402
import ministack_map_runs  # noqa: E402
import ministack_metrics  # noqa: E402
import ministack_properties  # noqa: E402
import ministack_state_machine_roles  # noqa: E402

ONLY_AUTHORIZE = "x-local-only-authorize"
CONDITION_KEYS = "x-local-condition-keys"

_given = contextvars.ContextVar("given", default={})
_pin_request_caller = iam_evaluator.pin_request_caller
_resolve_condition_key = iam_evaluator._resolve_condition_key
_extract_iam_action = iam_actions.extract_iam_action
_extract_resource_arn = iam_actions.extract_resource_arn
_runs_on_worker_thread = stacks._runs_on_worker_thread
_evaluate_conditions = engine._evaluate_conditions
_resolve_secret = secretsmanager._resolve
_ROTATION_SCHEDULE = "AWS::SecretsManager::RotationSchedule"


def _pin_with_condition_keys(headers, query_params=None):
    _given.set({key.lower(): value for key, value in json.loads(headers.get(CONDITION_KEYS, "{}")).items()})
    return _pin_request_caller(headers, query_params)


def _resolve_given_first(key, context):
    if key.lower() == "aws:securetransport":
        return "true"
    return _given.get().get(key.lower()) or _resolve_condition_key(key, context)


def _extract_as_aws_does(*request):
    """AWS has no action called Converse: the call needs `bedrock:InvokeModel`."""
    action = _extract_iam_action(*request)
    return "bedrock:InvokeModel" if action == "bedrock:Converse" else action


def _extract_with_policy_sources(service, *request):
    """The resource of a simulation is the role or user whose policies it evaluates."""
    found = _extract_resource_arn(service, *request)
    parameters = next((part for part in request if isinstance(part, dict) and "PolicySourceArn" in part), {})
    source = parameters.get("PolicySourceArn")
    return (source[0] if isinstance(source, list) else source) or found


def _turn_rotation_on(_logical_id, properties, _stack_name):
    """Calls RotateSecret of the server in front of ministack, which implements it."""
    asked = {
        "SecretId": properties["SecretId"],
        "RotationLambdaARN": properties["RotationLambdaARN"],
        # ministack's CloudFormation doesn't convert the parameter to a number.
        "RotationRules": {"AutomaticallyAfterDays": int(properties["RotationRules"]["AutomaticallyAfterDays"])},
        "RotateImmediately": properties.get("RotateImmediatelyOnUpdate", True),
    }
    headers = {
        "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/secretsmanager/aws4_request",
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Target": "secretsmanager.RotateSecret",
    }
    request = urllib.request.Request(os.environ["AWS_ENDPOINT_URL"], json.dumps(asked).encode(), headers)
    urllib.request.urlopen(request, timeout=30).close()
    return properties["SecretId"], {}


def _resolve_secret_by_its_name(secret_id, **scope):
    """Finds a secret by the name in its ARN, because ministack would compare the ARNs of all secrets."""
    name = secret_id.rpartition(":")[2].rpartition("-")[0] if secret_id else ""
    found = secretsmanager._secrets.get(name)
    if found and found["ARN"] == secret_id:
        return name, found
    return _resolve_secret(secret_id, **scope)


def _blocks(resource_type):
    """RotationSchedule's call leads back to ministack, which must be free to answer it."""
    return resource_type == _ROTATION_SCHEDULE or _runs_on_worker_thread(resource_type)


def _evaluate_with_joins(template, params):
    """Evaluates the joins in the template's conditions, which ask whether a list parameter is empty."""
    return _evaluate_conditions({**template, "Conditions": _joined(template.get("Conditions", {}), params)}, params)


def _joined(expression, params):
    match expression:
        case {"Fn::Join": [delimiter, {"Ref": name}]}:
            return delimiter.join(params[name]["Value"].split(","))
        case dict():
            return {key: _joined(value, params) for key, value in expression.items()}
        case list():
            return [_joined(value, params) for value in expression]
    return expression


def _unless_only_authorizing(handler):
    async def handle(method, path, headers, body, query_params):
        if ONLY_AUTHORIZE in headers:
            return 200, {"Content-Type": "application/json"}, b"{}"
        return await handler(method, path, headers, body, query_params)

    return handle


def _end_with_parent():
    """So that a parent that is killed leaves no local AWS behind."""
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


_end_with_parent()
iam_evaluator.pin_request_caller = _pin_with_condition_keys
iam_evaluator._resolve_condition_key = _resolve_given_first
iam_actions.extract_iam_action = _extract_as_aws_does
iam_actions.extract_resource_arn = _extract_with_policy_sources
secretsmanager._resolve = _resolve_secret_by_its_name
provisioners._RESOURCE_HANDLERS[_ROTATION_SCHEDULE] = {"create": _turn_rotation_on}
stacks._runs_on_worker_thread = _blocks
for _module in (engine, changesets, handlers, stacks):
    if hasattr(_module, "_evaluate_conditions"):
        _module._evaluate_conditions = _evaluate_with_joins
app.SERVICE_HANDLERS["states"] = ministack_map_runs.handle_request
for _service, _handler in app.SERVICE_HANDLERS.items():
    app.SERVICE_HANDLERS[_service] = _unless_only_authorizing(_handler)
ministack_destinations.install()
ministack_metrics.install()
ministack_properties.install()
ministack_state_machine_roles.install()
ministack_map_runs.install()
hypercorn.asyncio.serve = asgi_server.serve
app.main()
