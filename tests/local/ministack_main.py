"""Starts ministack so that its evaluator can be asked alone, and told condition keys that it does not know.

Runs in ministack's own Python. The server before ministack sends two headers, which signatures do not cover, and lets
no client's through.
"""

import contextvars
import json

from ministack import app
from ministack.core import iam_actions, iam_evaluator

ONLY_AUTHORIZE = "x-local-only-authorize"
CONDITION_KEYS = "x-local-condition-keys"

_given = contextvars.ContextVar("given", default={})
_pin_request_caller = iam_evaluator.pin_request_caller
_resolve_condition_key = iam_evaluator._resolve_condition_key
_extract_iam_action = iam_actions.extract_iam_action


def _pin_with_condition_keys(headers, query_params=None):
    _given.set({key.lower(): value for key, value in json.loads(headers.get(CONDITION_KEYS, "{}")).items()})
    return _pin_request_caller(headers, query_params)


def _resolve_given_first(key, context):
    return _given.get().get(key.lower()) or _resolve_condition_key(key, context)


def _extract_as_aws_does(*request):
    """There is no action called Converse: the call needs `bedrock:InvokeModel`."""
    action = _extract_iam_action(*request)
    return "bedrock:InvokeModel" if action == "bedrock:Converse" else action


def _unless_only_authorizing(handler):
    async def handle(method, path, headers, body, query_params):
        if ONLY_AUTHORIZE in headers:
            return 200, {"Content-Type": "application/json"}, b"{}"
        return await handler(method, path, headers, body, query_params)

    return handle


iam_evaluator.pin_request_caller = _pin_with_condition_keys
iam_evaluator._resolve_condition_key = _resolve_given_first
iam_actions.extract_iam_action = _extract_as_aws_does
for _service, _handler in app.SERVICE_HANDLERS.items():
    app.SERVICE_HANDLERS[_service] = _unless_only_authorizing(_handler)
app.main()
