"""bedrock-role.yaml: a role for Bedrock in another account."""

import uuid

import pytest
from botocore.exceptions import ClientError
from support.deployed_bedrock_role import MODEL, DeployedBedrockRole, caller_role
from support.deployed_function import SCHEDULED_EVENT, rotate_deployed
from support.deployment import invoke
from support.local_cloud import REGION
from support.upstream import form


@pytest.fixture
def bedrock_role(world):
    def bedrock_role(**parameters):
        return DeployedBedrockRole(world, caller_role(world), **parameters).deploy()

    return bedrock_role


def test_a_deployed_function_rotates_with_the_role_of_bedrock_role_yaml(world, deployed):
    ai_secret, role = world.new_ai_secret(), DeployedBedrockRole(world, "")
    # The order of the README: the role's ARN is known before the role exists.
    outputs = deployed(ai_secret, BedrockRoleArn=role.arn, ExternalId="from-us")
    report, failed = invoke(world.cloud, outputs["FunctionName"], SCHEDULED_EVENT)
    assert failed and report["targets"][0]["error"]["call"] == "AssumeRole"
    role.parameters["ExecutionRoleArn"] = outputs["ExecutionRoleArn"]
    role.deploy()
    assert rotate_deployed(world, outputs)["outcome"] == "rotated"
    assert world.has_working_credentials(ai_secret)
    assert form(world.aws_requests("sts:AssumeRole")[-1])["ExternalId"] == "from-us"


def test_a_short_term_api_key_needs_allow_api_keys(world, deployed):
    ai_secret, role = world.new_ai_secret(), DeployedBedrockRole(world, "", AllowApiKeys="true")
    outputs = deployed(ai_secret, Kind="short_term_api_key", BedrockRoleArn=role.arn, ExternalId="from-us")
    role.parameters["ExecutionRoleArn"] = outputs["ExecutionRoleArn"]
    role.deploy()
    assert rotate_deployed(world, outputs)["outcome"] == "rotated"
    assert world.has_working_credentials(ai_secret)
    condition = {"StringEquals": {"bedrock:BearerTokenType": "SHORT_TERM"}}
    assert role.policy()["CallWithApiKeys"]["Condition"] == condition


@pytest.mark.parametrize("api_keys", ["false", "true"])
def test_a_role_may_call_the_second_endpoint_of_bedrock_if_that_is_allowed(bedrock_role, api_keys):
    policy = bedrock_role(AllowMantle="true", AllowApiKeys=api_keys, Regions=REGION).policy()
    inference = policy["InvokeModelsOfMantle"]
    assert inference["Action"] == "bedrock-mantle:CreateInference"
    assert inference["Resource"] == "arn:aws:bedrock-mantle:*:000000000000:project/*"
    assert inference["Condition"]["StringEquals"] == {"aws:RequestedRegion": [REGION]}
    assert ("CallMantleWithApiKeys" in policy) == (api_keys == "true")


def test_the_role_is_assumed_only_with_the_external_id_and_for_an_hour(bedrock_role):
    role = bedrock_role()
    assert role.assume(ExternalId="from-us")
    for options in ({}, {"ExternalId": "from-somebody-else"}):
        assert role.refused(lambda: role.assume(**options)) == "AccessDenied"
    found = role.world.client("iam").get_role(RoleName=role.name)["Role"]
    assert found["MaxSessionDuration"] == 3600
    [trusted] = found["AssumeRolePolicyDocument"]["Statement"]
    assert trusted["Principal"] == {"AWS": role.parameters["ExecutionRoleArn"]}
    assert trusted["Condition"] == {"StringEquals": {"sts:ExternalId": "from-us"}}


def test_the_role_has_the_path_and_the_boundary_that_parameters_give_it(bedrock_role, world):
    document = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "bedrock:List*", "Resource": "*"}]}'
    boundary = world.client("iam").create_policy(PolicyName=f"b-{uuid.uuid4().hex[:8]}", PolicyDocument=document)
    role = bedrock_role(RolePath="/service/bedrock/", PermissionsBoundaryArn=boundary["Policy"]["Arn"])
    found = world.client("iam").get_role(RoleName=role.name)["Role"]
    assert found["Path"] == "/service/bedrock/"
    assert found["PermissionsBoundary"]["PermissionsBoundaryArn"] == boundary["Policy"]["Arn"]
    assert (role.list_models(), role.converse()) == (None, "AccessDeniedException")


@pytest.mark.parametrize(
    "named", [{"Tags": [{"Key": "team", "Value": "ml"}]}, {"SourceIdentity": "rotator-prod"}], ids=lambda it: [*it][0]
)
def test_sessions_have_tags_and_a_source_identity_unless_a_parameter_forbids_them(bedrock_role, named):
    assert bedrock_role().assume(ExternalId="from-us", **named)
    role = bedrock_role(AllowSessionTags="false")
    assert role.refused(lambda: role.assume(ExternalId="from-us", **named)) == "AccessDenied"
    assert role.assume(ExternalId="from-us")


def test_nobody_else_assumes_the_role(world):
    another_role = world.cloud.new_role(trust="*")
    role = DeployedBedrockRole(world, another_role).deploy()
    assert role.refused(lambda: role.assume(ExternalId="from-us")) == "AccessDenied"


def test_a_role_without_limits_may_call_every_model_and_do_nothing_else(bedrock_role):
    role = bedrock_role()
    assert (role.converse(), role.converse("another.model-v1:0", "eu-west-1"), role.list_models()) == (None,) * 3
    assert set(role.policy()) == {"InvokeModels", "ProveTheCredentials"}
    assert "Condition" not in role.policy()["InvokeModels"] and "Condition" not in role.policy()["ProveTheCredentials"]
    assert role.refused(lambda: role.client("bedrock").list_custom_models()) == "AccessDeniedException"


def test_a_role_for_some_regions_can_allow_global_profiles_too(bedrock_role):
    """In calls of a global profile, AWS names the region `unspecified`."""
    role = bedrock_role(Regions=f"{REGION},unspecified")
    asked = {"aws:RequestedRegion": [REGION, "unspecified"]}
    assert role.policy()["InvokeModels"]["Condition"]["StringEquals"] == asked


def test_a_role_for_some_models_calls_no_other(bedrock_role):
    arns = [
        f"arn:aws:bedrock:*::foundation-model/{MODEL}",
        "arn:aws:bedrock:us-east-1::foundation-model/amazon.titan-*",
    ]
    role = bedrock_role(ModelArns=",".join(arns))
    assert role.policy()["InvokeModels"]["Resource"] == arns
    assert (role.converse(), role.converse("amazon.titan-text-lite-v1"), role.list_models()) == (None,) * 3
    assert role.converse("amazon.nova-lite-v1:0") == "AccessDeniedException"
    assert role.converse("amazon.titan-text-lite-v1", "eu-west-1") == "AccessDeniedException"


def test_a_role_for_some_regions_calls_in_no_other(bedrock_role):
    role = bedrock_role(Regions="us-east-1,eu-central-1")
    assert (role.converse(), role.converse(region="eu-central-1"), role.list_models()) == (None,) * 3
    assert role.converse(region="eu-west-1") == "AccessDeniedException"
    assert role.list_models("eu-west-1") == "AccessDeniedException"


def test_a_role_for_a_gateways_address_lets_the_function_probe_from_elsewhere(bedrock_role):
    role = bedrock_role(SourceAddresses="203.0.113.7/32,2001:db8::/48")
    assert role.converse() == "AccessDeniedException"
    assert role.list_models() is None
    role = bedrock_role(SourceAddresses="127.0.0.0/8", Regions=REGION)
    assert role.converse() is None
    assert role.converse(region="eu-west-1") == "AccessDeniedException"


@pytest.mark.parametrize(
    ("changed", "description"),
    [
        ({"ExternalId": ""}, "ExternalId"),
        ({"ExecutionRoleArn": "*"}, "ExecutionRoleArn"),
        ({"ExecutionRoleArn": "arn:aws:iam::000000000000:root"}, "ExecutionRoleArn"),
        ({"ModelArns": "amazon.nova-micro-v1:0"}, "ModelArns"),
        ({"SourceAddresses": "203.0.113.7"}, "SourceAddresses"),
    ],
)
def test_a_parameter_that_would_open_the_role_to_others_is_refused(world, changed, description):
    role = DeployedBedrockRole(world, caller_role(world), **changed)
    with pytest.raises(ClientError, match=description):
        role.deploy()
