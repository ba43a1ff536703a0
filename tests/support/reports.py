"""Reads outcomes and errors from the reports of a function with one target."""

from .invocation_result import InvocationResult


def outcome(result: InvocationResult) -> str:
    """The outcome of the target in an invocation that succeeded."""
    assert result.ok, result.body
    return result.body["targets"][0]["outcome"]


def failed_error(report: dict, error_class: str, service: str, call: str | None = None, problem: str = "") -> dict:
    """The target's error, which must have this class, service and call, and this text in its problem."""
    [target] = report["targets"]
    assert target["outcome"] == "failed"
    error = target["error"]
    assert (error["class"], error["service"]) == (error_class, service), error
    assert call in (None, error.get("call")), error
    assert problem in error["problem"], error
    return error
