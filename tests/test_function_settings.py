"""Settings of the deployed function: timeout, architecture, probe, tracing and VPC."""

import pytest
from support.deployed_bedrock_role import MODEL
from support.deployed_function import execution_policy, rotate_deployed
from support.end_to_end import COMPLETION
from support.emulated_function import ARCHITECTURE
from support.local_cloud import REGION


def test_the_function_has_the_configured_timeout_and_the_architecture_of_the_build(world, deployed):
    outputs = deployed(world.new_ai_secret(), TimeoutSeconds="900")
    found = world.client("lambda").get_function_configuration(FunctionName=outputs["FunctionName"])
    assert (found["Architectures"], found["Timeout"]) == ([ARCHITECTURE], 900)


@pytest.mark.parametrize("kind", ["temporary", "access_key"])
def test_credentials_are_proven_with_the_configured_model(world, deployed, kind):
    outputs = deployed(world.new_ai_secret(), Kind=kind, ProbeModelId=MODEL)
    signed_with = f"Credential={rotate_deployed(world, outputs)['credential_id']}/"
    # There are several requests if IAM doesn't know a new access key at once.
    probes = {
        request.path for request in world.aws_requests() if signed_with in request.headers.get("authorization", "")
    }
    assert probes == {f"/model/{MODEL}/converse"}


@pytest.mark.parametrize("kind", ["temporary", "access_key"])
def test_credentials_are_proven_through_braintrust_with_the_configured_model(world, deployed, kind):
    outputs = deployed(world.new_ai_secret(), Kind=kind, EndToEndModelId=MODEL)
    assert rotate_deployed(world, outputs)["ai_secrets"][0]["end_to_end"] == {"result": "proven"}
    models = [request.json()["model"] for request in world.braintrust.requests if request.call == COMPLETION]
    assert models == [MODEL]


def test_tracing_and_a_vpc_add_only_their_own_permissions(world, deployed):
    ec2 = world.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.20.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.20.{n}.0/24", AvailabilityZone=f"{REGION}{zone}")["Subnet"][
            "SubnetId"
        ]
        for n, zone in enumerate("ab")
    ]
    group = ec2.create_security_group(GroupName="rotator", Description="rotator", VpcId=vpc)["GroupId"]
    plain = deployed(world.new_ai_secret())
    whole = deployed(world.new_ai_secret(), Tracing="Active", VpcSubnetIds=",".join(subnets), VpcSecurityGroupIds=group)
    without, policy = execution_policy(world, plain), execution_policy(world, whole)
    assert set(policy) - set(without) == {"SendTraces", "RunInTheVpc"}
    assert set(policy["SendTraces"]["Action"]) == {"xray:PutTraceSegments", "xray:PutTelemetryRecords"}
    assert policy["RunInTheVpc"]["Condition"] == {"Null": {"lambda:SourceFunctionArn": "true"}}
    # The local CloudFormation ignores a function's VpcConfig.
    for outputs, mode in ((plain, "PassThrough"), (whole, "Active")):
        function = world.client("lambda").get_function_configuration(FunctionName=outputs["FunctionName"])
        assert function["TracingConfig"] == {"Mode": mode}
