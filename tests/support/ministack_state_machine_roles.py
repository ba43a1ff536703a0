"""What ministack's Step Functions lacks: the permissions of a state machine's role, the limit of a payload, and the
name of the error of a throttled invocation.

This runs in ministack's own Python environment.
"""

import contextvars
import json

from ministack.core import iam_evaluator
from ministack.services import stepfunctions

_PAYLOAD_LIMIT = 262_144

# The context object of the state that is being executed.
_context = contextvars.ContextVar("context")
_execute_task = stepfunctions._execute_task
_read_map_items = stepfunctions._read_map_items
_call_lambda = stepfunctions._call_lambda
_call_sdk = stepfunctions._invoke_aws_sdk_integration


def install():
    stepfunctions._execute_task = _execute_with_context
    stepfunctions._read_map_items = _read_permitted_items
    stepfunctions._call_lambda = _call_permitted_lambda
    stepfunctions._invoke_aws_sdk_integration = _call_permitted_sdk


def require(ctx, action, resource):
    """Raises what Step Functions does if the state machine's role doesn't allow the action."""
    machine = stepfunctions._state_machines[ctx["StateMachine"]["Id"]]
    account, name = machine["roleArn"].split(":")[4], machine["roleArn"].rpartition("/")[2]
    asked = iam_evaluator.EvalContext(
        principal_arn=machine["roleArn"],
        principal_type="AssumedRole",
        principal_account=account,
        action=action,
        resource_arn=resource,
        region=machine["stateMachineArn"].split(":")[3],
    )
    from ministack.services import iam

    limits = iam_evaluator._permissions_boundary(iam._roles, name, account)
    policies = iam_evaluator._gather_role_policies(name, account)
    if iam_evaluator.evaluate(asked, policies, *limits).decision != "Allow":
        raise stepfunctions._ExecutionError("States.Permissions", f"{name} may not {action} on {resource}")


def _execute_with_context(state, raw_input, execution, ctx):
    _context.set(ctx)
    return _execute_task(state, raw_input, execution, ctx)


def _read_permitted_items(reader, effective, ctx):
    asked = reader["Arguments"]
    require(ctx, "s3:GetObject", f"arn:aws:s3:::{asked['Bucket']}/{asked['Key']}")
    return _read_map_items(reader, effective, ctx)


def _call_permitted_lambda(function, event):
    require(_context.get(), "lambda:InvokeFunction", function)
    try:
        answer = _call_lambda(function, event)
    except stepfunctions._ExecutionError as error:
        if '"__type": "TooManyRequestsException"' in error.cause:
            raise stepfunctions._ExecutionError("Lambda.TooManyRequestsException", error.cause) from None
        raise
    if len(json.dumps(answer)) > _PAYLOAD_LIMIT:
        raise stepfunctions._ExecutionError("States.DataLimitExceeded", "The answer is larger than 256 KB")
    return answer


def _call_permitted_sdk(resource, asked):
    if resource.endswith(":sfn:listExecutions"):
        require(_context.get(), "states:ListExecutions", asked["StateMachineArn"])
    if resource.endswith(":sfn:describeExecution"):
        require(_context.get(), "states:DescribeExecution", asked["ExecutionArn"])
    return _call_sdk(resource, asked)
