"""The alarms of a deployed stack."""

from .world import World

NAMESPACE = "BedrockBraintrustRotator"
# What `settings` returns for each alarm.
ALWAYS = {
    "ErrorsAlarm": ("AWS/Lambda", "Errors", "Sum", 60, 30, 2, "GreaterThanThreshold", 0, "notBreaching"),
    "RotationFailedAlarm": (NAMESPACE, "RotationFailed", "Sum", 60, 30, 2, "GreaterThanThreshold", 0, "notBreaching"),
    "ThrottlesAlarm": ("AWS/Lambda", "Throttles", "Sum", 300, 3, 3, "GreaterThanThreshold", 0, "notBreaching"),
    "FailureQueueAlarm": (
        "AWS/SQS",
        "ApproximateNumberOfMessagesVisible",
        "Maximum",
        300,
        1,
        None,
        "GreaterThanThreshold",
        0,
        "notBreaching",
    ),
}
EXPIRY = (NAMESPACE, "SecondsUntilExpiry", "Minimum", 60, 1, None, "LessThanThreshold", 1500, "ignore")
NO_SUCCESS = (NAMESPACE, "RotationSucceeded", "Sum", 60, 30, 30, "LessThanThreshold", 1, "breaching")
NO_SCHEDULED_RUN = (NAMESPACE, "CredentialAgeSeconds", "SampleCount", 60, 30, 30, "LessThanThreshold", 1, "breaching")
AGE = (NAMESPACE, "CredentialAgeSeconds", "Maximum", 60, 1, None, "GreaterThanThreshold", 45 * 86_400, "ignore")
_SETTINGS = ["Statistic", "Period", "EvaluationPeriods", "DatapointsToAlarm", "ComparisonOperator", "Threshold"]


def stack_of(outputs: dict) -> str:
    # The log group's name ends with a part of the stack's ID.
    return outputs["LogGroupName"].rpartition("/")[2].rpartition("-")[0]


def alarms_of(world: World, outputs: dict) -> dict[str, dict]:
    """The stack's alarms by their logical IDs."""
    stack = stack_of(outputs)
    resources = world.client("cloudformation").describe_stack_resources(StackName=stack)
    found = world.client("cloudwatch").describe_alarms(AlarmNamePrefix=stack)["MetricAlarms"]
    names = {
        resource["PhysicalResourceId"]: resource["LogicalResourceId"]
        for resource in resources["StackResources"]
        if resource["ResourceType"] == "AWS::CloudWatch::Alarm"
    }
    return {names[alarm["AlarmName"]]: alarm for alarm in found if alarm["AlarmName"] in names}


def settings(alarm: dict) -> tuple:
    """What an alarm watches, and when it goes off."""
    watched = [alarm["Namespace"], alarm["MetricName"]]
    return (*watched, *(alarm.get(name) for name in _SETTINGS), alarm["TreatMissingData"])
