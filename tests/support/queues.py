"""The messages of a queue in the local AWS."""

import json
import time

from .world import World


def new_queue(world: World, name: str) -> tuple[str, str]:
    """The URL and the ARN of a queue that every rule and every topic may send to."""
    sqs = world.client("sqs")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    senders = {"Service": ["events.amazonaws.com", "sns.amazonaws.com"]}
    statement = {"Effect": "Allow", "Principal": senders, "Action": "sqs:SendMessage", "Resource": arn}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    return url, arn


def wait_for_message(world: World, queue_url: str, timeout: float = 60):
    """The body of the first message, parsed."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        answer = world.client("sqs").receive_message(QueueUrl=queue_url, WaitTimeSeconds=1)
        for message in answer.get("Messages", []):
            return json.loads(message["Body"])
    raise AssertionError("no message arrived in the queue")
