"""Finds and invokes a function that is running in the caller's AWS account or in the local stack."""

import json
import os
import re
import sys

import boto3
import local_stack
from botocore.config import Config
from environment import ROOT

NOT_RUNNING = "Nothing is running. Start a local stack: make run"
# A rotation may take 15 minutes, and a second attempt would be a second rotation.
ONCE = Config(read_timeout=910, retries={"total_max_attempts": 1})
OR_DEPLOYED = ". For a deployed stack, add STACK=<its name> to the command."


class RunningFunction:
    def __init__(self, stack, only_local=False):
        """`stack` is the name of a CloudFormation stack. If it is empty, the function is the local stack's."""
        self.local = None if stack else local_stack.load()
        if not stack and not self.local:
            sys.exit(NOT_RUNNING + ("" if only_local else OR_DEPLOYED))
        # botocore itself reads only AWS_DEFAULT_REGION.
        account = self.local["credentials"] if self.local else {"region_name": os.environ.get("AWS_REGION") or None}
        self.session = boto3.session.Session(**account)
        if not self.session.region_name:
            self.session = boto3.session.Session(region_name=_saved_region(stack))
        if self.local:
            self.title, stack = "The local stack that `make run` left running", self.local["stack_name"]
        else:
            self.title = f"The stack {stack} in {self.session.region_name}"
        outputs, parameters = self._described(stack)
        self.name, self.log_group = outputs["FunctionName"], outputs["LogGroupName"]
        self.metrics_namespace = parameters["MetricsNamespace"]
        # A stack of an older release doesn't have the parameter.
        self.has_metrics_per_target = parameters.get("MetricsPerTarget") != "false"

    def client(self, service, config=ONCE):
        return self.session.client(service, endpoint_url=self.local and self.local["endpoint_url"], config=config)

    def invoke(self, **event):
        """Returns the answer, and whether it is an error."""
        answer = self.client("lambda").invoke(FunctionName=self.name, Payload=json.dumps(event))
        body = json.loads(answer["Payload"].read())
        if "FunctionError" not in answer:
            return printable(body), False
        try:
            return printable(json.loads(body["errorMessage"])), True
        except ValueError:
            # Lambda's own message or a refused event, which quotes nothing from Braintrust.
            return "\n".join(map(printable, body["errorMessage"].split("\n"))), True

    def _described(self, stack):
        """The outputs and the parameters of a stack."""
        [described] = self.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
        outputs = {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}
        return outputs, {given["ParameterKey"]: given["ParameterValue"] for given in described["Parameters"]}


def printable(value):
    """All texts in a value of JSON without characters that control a terminal or begin a new line.

    Whoever may name a provider in Braintrust could otherwise write what they like to the screen.
    """
    if isinstance(value, dict):
        return {printable(key): printable(one) for key, one in value.items()}
    if isinstance(value, list):
        return [printable(one) for one in value]
    return "".join(c if c.isprintable() else "\ufffd" for c in value) if isinstance(value, str) else value


def _saved_region(stack):
    """The region that deploy.py saved."""
    saved = ROOT / f"deploy/{stack}.yaml"
    if not saved.exists():
        sys.exit(f"The region is unknown: there is no {saved}. Set AWS_REGION.")
    found = re.search(r"^Region: *\"?([a-z0-9-]+)", saved.read_text(), re.MULTILINE)
    return found[1] if found else sys.exit(f"The region is unknown: {saved} has no Region. Add it, or set AWS_REGION.")
