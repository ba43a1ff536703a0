"""bedrock-role.yaml, deployed into the local AWS, and calls of Bedrock by sessions of its role."""

import uuid

import boto3
from botocore.exceptions import ClientError

from .local_cloud import REGION
from .local_iam import ACCOUNT
from .paths import ROOT
from .world import World

BEDROCK_ROLE = ROOT / "bedrock-role.yaml"
MODEL = "amazon.nova-micro-v1:0"


def caller_role(world: World) -> str:
    """The role of `world.cloud.caller`."""
    return world.client("iam").get_role(RoleName="rotator-execution")["Role"]["Arn"]


class DeployedBedrockRole:
    def __init__(self, world, principal, **parameters):
        self.world = world
        self.name = f"bedrock-{uuid.uuid4().hex[:8]}"
        self.parameters = {"ExecutionRoleArn": principal, "ExternalId": "from-us", "RoleName": self.name, **parameters}

    @property
    def arn(self):
        return f"arn:aws:iam::{ACCOUNT}:role{self.parameters.get('RolePath', '/')}{self.name}"

    def deploy(self):
        client = self.world.client("cloudformation")
        client.create_stack(
            StackName=self.name,
            TemplateBody=BEDROCK_ROLE.read_text(),
            Capabilities=["CAPABILITY_NAMED_IAM"],
            Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in self.parameters.items()],
        )
        client.get_waiter("stack_create_complete").wait(
            StackName=self.name, WaiterConfig={"Delay": 0.2, "MaxAttempts": 150}
        )
        [stack] = client.describe_stacks(StackName=self.name)["Stacks"]
        assert [output["OutputValue"] for output in stack["Outputs"]] == [self.arn]
        return self

    def policy(self):
        document = self.world.client("iam").get_role_policy(RoleName=self.name, PolicyName="bedrock")
        return {statement["Sid"]: statement for statement in document["PolicyDocument"]["Statement"]}

    def client(self, service="bedrock-runtime", region=REGION):
        session = self.assume(ExternalId="from-us")
        pair = session["AccessKeyId"], session["SecretAccessKey"], session["SessionToken"]
        return boto3.session.Session(*pair, region_name=region).client(service, endpoint_url=self.world.aws.url)

    def assume(self, **options):
        """Assumes the role as the role of `world.cloud.caller`."""
        caller = {name.lower(): value for name, value in self.world.cloud.caller.items()}
        session = boto3.session.Session(**caller, region_name=REGION)
        sts = session.client("sts", endpoint_url=self.world.aws.url)
        return sts.assume_role(RoleArn=self.arn, RoleSessionName="test", **options)["Credentials"]

    def refused(self, call) -> str | None:
        """The error code that a call is refused with; None if it succeeds."""
        try:
            call()
        except ClientError as error:
            return error.response["Error"]["Code"]
        return None

    def converse(self, model=MODEL, region=REGION):
        message = {"role": "user", "content": [{"text": "."}]}
        return self.refused(lambda: self.client(region=region).converse(modelId=model, messages=[message]))

    def list_models(self, region=REGION):
        return self.refused(lambda: self.client("bedrock", region).list_foundation_models())
