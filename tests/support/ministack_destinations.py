"""What ministack lacks of asynchronous invocations: event buses as destinations, destinations of successful
invocations, and the retries of an event that EventBridge sends.

This runs in ministack's own Python environment. Like ministack, it doesn't check the function's permission to send.
"""

import contextvars
import json
from datetime import datetime, timezone
from uuid import uuid4

from ministack.services import eventbridge, lambda_svc

_RESULT = "Lambda Function Invocation Result - "

# The results of one event's attempts; None for a synchronous invocation.
_attempts = contextvars.ContextVar("attempts", default=None)
_invoke_async = lambda_svc.invoke_async_with_retry
_execute = lambda_svc._execute_function
_route_failure = lambda_svc._route_async_failure


def install():
    lambda_svc.invoke_async_with_retry = _invoke_and_remember
    lambda_svc._execute_function = _execute_and_report_success
    lambda_svc._route_async_failure = _report_failure
    eventbridge._dispatch_to_lambda = _invoke_by_rule


def _invoke_and_remember(function, event):
    def invoke():
        _attempts.set([])
        _invoke_async(function, event)  # its thread gets a copy of this context

    contextvars.copy_context().run(invoke)


def _execute_and_report_success(function, event):
    result, attempts = _execute(function, event), _attempts.get()
    if attempts is not None:
        attempts.append(result)
        settings = (function.get("event_invoke_configs") or {}).get("$LATEST") or {}
        bus = ((settings.get("DestinationConfig") or {}).get("OnSuccess") or {}).get("Destination", "")
        if ":event-bus/" in bus and not result.get("error") and not result.get("throttle"):
            _put(bus, "Success", "Success", function["config"]["FunctionArn"], event, result)
    return result


def _report_failure(destination, function_name, event, result):
    if ":event-bus/" not in destination:
        return _route_failure(destination, function_name, event, result)
    arn = lambda_svc._functions[function_name]["config"]["FunctionArn"]
    return _put(destination, "Failure", "RetriesExhausted", arn, event, result)


def _put(bus, detail_type, condition, function_arn, event, result):
    """Sends the record of an invocation, which is the detail of the event."""
    failed = {"functionError": result.get("function_error") or "Unhandled"} if result.get("error") else {}
    record = {
        "version": "1.0",
        "timestamp": datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "requestContext": {
            "requestId": str(uuid4()),
            "functionArn": f"{function_arn}:$LATEST",
            "condition": condition,
            "approximateInvokeCount": len(_attempts.get()),
        },
        "requestPayload": event,
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", **failed},
        "responsePayload": result.get("body"),
    }
    entry = {
        "Source": "lambda",
        "DetailType": _RESULT + detail_type,
        "Detail": json.dumps(record),
        "EventBusName": bus.partition(":event-bus/")[2],
        "Resources": [f"{function_arn}:$LATEST", bus],
    }
    eventbridge._put_events({"Entries": [entry]})


def _invoke_by_rule(arn, payload):
    """EventBridge invokes functions asynchronously."""
    function, config, _ = lambda_svc._get_func_record_for_ref(arn)
    if function and config:
        lambda_svc.invoke_async_with_retry(
            lambda_svc._execution_record_for_config(function, config), json.loads(payload)
        )
