"""What companies require of a stack: boundaries, paths, keys, signed code, tagged sessions, TLS, and logs that stay."""

import json
import uuid

import boto3
import pytest
from botocore.exceptions import ClientError
from support.deployed_function import execution_policy, parameters_of, refused_call, rotate_deployed
from support.deployment import create_change_set, deploy_directly
from support.local_cloud import REGION
from support.local_iam import ACCOUNT
from support.paths import ROOT, TEMPLATE
from support.upstream import form

SIGNING = f"arn:aws:lambda:us-east-1:{ACCOUNT}:code-signing-config:csc-0123456789abcdef0"


def new_boundary(world, *statements):
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}, *statements]}
    made = world.client("iam").create_policy(
        PolicyName=f"boundary-{uuid.uuid4().hex[:8]}", PolicyDocument=json.dumps(document)
    )
    return made["Policy"]["Arn"]


def role_of(world, arn):
    return world.client("iam").get_role(RoleName=arn.rpartition("/")[2])["Role"]


def test_a_permissions_boundary_limits_both_roles(world, deployed):
    boundary = new_boundary(world)
    outputs = deployed(world.new_ai_secret(), PermissionsBoundaryArn=boundary)
    for role in ("ExecutionRoleArn", "BedrockRoleArn"):
        found = role_of(world, outputs[role])["PermissionsBoundary"]
        assert found["PermissionsBoundaryArn"] == boundary, role
    assert rotate_deployed(world, outputs)["outcome"] == "rotated"
    denied = new_boundary(world, {"Effect": "Deny", "Action": "sts:AssumeRole", "Resource": "*"})
    assert refused_call(world, deployed(world.new_ai_secret(), PermissionsBoundaryArn=denied)) == "sts:AssumeRole"


def test_a_permissions_boundary_limits_the_user(world, deployed):
    boundary = new_boundary(world)
    outputs = deployed(world.new_ai_secret(), Kind="access_key", PermissionsBoundaryArn=boundary)
    user = world.client("iam").get_user(UserName=outputs["IamUserName"])["User"]
    assert user["PermissionsBoundary"]["PermissionsBoundaryArn"] == boundary
    assert rotate_deployed(world, outputs)["outcome"] == "rotated"


def test_roles_and_their_policy_have_the_path_and_the_user_has_none(world, deployed):
    ai_secret = world.new_ai_secret()
    outputs = deployed(ai_secret, RolePath="/service/bedrock/")
    for role in ("ExecutionRoleArn", "BedrockRoleArn"):
        assert outputs[role].startswith(f"arn:aws:iam::{ACCOUNT}:role/service/bedrock/rotator-"), role
    attached = world.client("iam").list_attached_role_policies(RoleName=outputs["BedrockRoleArn"].rpartition("/")[2])
    assert [p["PolicyArn"].partition(":policy")[2].rpartition("/")[0] for p in attached["AttachedPolicies"]] == [
        "/service/bedrock"
    ]
    assert rotate_deployed(world, outputs)["outcome"] == "rotated"
    assert world.has_working_credentials(ai_secret)
    outputs = deployed(world.new_ai_secret(), Kind="access_key", RolePath="/service/bedrock/")
    assert world.client("iam").get_user(UserName=outputs["IamUserName"])["User"]["Path"] == "/"
    assert rotate_deployed(world, outputs)["outcome"] == "rotated"


def test_a_customer_managed_key_encrypts_logs_queue_topic_and_variables(world, deployed):
    key = world.client("kms").create_key()["KeyMetadata"]["Arn"]
    outputs = deployed(world.new_ai_secret(), OperationsKmsKeyArn=key)
    [group] = world.client("logs").describe_log_groups(logGroupNamePrefix=outputs["LogGroupName"])["logGroups"]
    queue = queue_attributes(world, outputs)
    topic = world.client("sns").get_topic_attributes(TopicArn=outputs["AlarmTopicArn"])["Attributes"]
    function = world.client("lambda").get_function_configuration(FunctionName=outputs["FunctionName"])
    found = (group["kmsKeyId"], queue["KmsMasterKeyId"], topic["KmsMasterKeyId"], function["KMSKeyArn"])
    assert found == (key,) * 4
    # The local AWS doesn't encrypt anything, so the test looks at the permission that Lambda needs for the queue.
    statement = execution_policy(world, outputs)["UseTheKeyOfTheQueue"]
    assert (statement["Action"], statement["Resource"]) == (["kms:Decrypt", "kms:GenerateDataKey"], key)
    assert statement["Condition"] == {"StringEquals": {"kms:ViaService": "sqs.us-east-1.amazonaws.com"}}
    assert rotate_deployed(world, outputs)["outcome"] == "rotated"


def queue_attributes(world, outputs):
    sqs = world.client("sqs")
    return sqs.get_queue_attributes(QueueUrl=outputs["FailureQueueUrl"], AttributeNames=["All"])["Attributes"]


def test_the_queue_and_the_topic_refuse_requests_without_tls(world, deployed):
    outputs = deployed(world.new_ai_secret())
    topic = world.client("sns").get_topic_attributes(TopicArn=outputs["AlarmTopicArn"])["Attributes"]
    for policy, actions in [
        (queue_attributes(world, outputs)["Policy"], "sqs:*"),
        (topic["Policy"], ["sns:Publish", "sns:Subscribe"]),
    ]:
        [denied] = [s for s in json.loads(policy)["Statement"] if s["Effect"] == "Deny"]
        assert (denied["Principal"], denied["Action"]) == ("*", actions)
        assert denied["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    [alarms] = [s for s in json.loads(topic["Policy"])["Statement"] if s["Effect"] == "Allow"]
    assert alarms["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert alarms["Condition"] == {"StringEquals": {"aws:SourceAccount": ACCOUNT}}


def test_sessions_have_the_source_identity_and_the_tags(world, deployed):
    ai_secret = world.new_ai_secret()
    outputs = deployed(ai_secret, SourceIdentity="ml-platform", SessionTags="team=ml, cost-center=12 34")
    assert rotate_deployed(world, outputs)["outcome"] == "rotated"
    assert world.has_working_credentials(ai_secret)
    asked = form(world.aws_requests("sts:AssumeRole")[-1])
    tags = {asked[f"Tags.member.{n}.Key"]: asked[f"Tags.member.{n}.Value"] for n in (1, 2)}
    assert (asked["SourceIdentity"], tags) == ("ml-platform", {"team": "ml", "cost-center": "12 34"})
    actions = ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"]
    [trusted] = role_of(world, outputs["BedrockRoleArn"])["AssumeRolePolicyDocument"]["Statement"]
    assert trusted["Action"] == execution_policy(world, outputs)["AssumeTheBedrockRole"]["Action"] == actions


def test_the_logs_stay_when_the_stack_is_deleted_and_do_not_hinder_a_new_one(world):
    name, cloudformation = f"rotator-{uuid.uuid4().hex[:8]}", world.client("cloudformation")
    groups = []
    for _ in range(2):
        outputs = deploy_directly(world.cloud, TEMPLATE, name, parameters_of(world, world.new_ai_secret(), {}))
        rotate_deployed(world, outputs)
        groups.append(outputs["LogGroupName"])
        cloudformation.delete_stack(StackName=name)
        cloudformation.get_waiter("stack_delete_complete").wait(StackName=name, WaiterConfig={"Delay": 0.2})
    found = world.client("logs").describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{name}-")["logGroups"]
    assert {group["logGroupName"] for group in found} == set(groups) and len(set(groups)) == 2
    assert world.client("logs").filter_log_events(logGroupName=groups[0])["events"]


def test_the_function_checks_the_signature_of_its_code_if_a_parameter_says_so(world, deployed):
    client = world.client("lambda")
    for parameters, expected in [({"CodeSigningConfigArn": SIGNING}, SIGNING), ({}, "")]:
        function = deployed(world.new_ai_secret(), **parameters)["FunctionName"]
        assert client.get_function_code_signing_config(FunctionName=function)["CodeSigningConfigArn"] == expected


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"PermissionsBoundaryArn": "developer-boundary"}, "must be a policy's ARN"),
        ({"RolePath": "service"}, "must begin and end with /"),
        ({"OperationsKmsKeyArn": "alias/logs"}, "must be a key's ARN, not an alias"),
        ({"CodeSigningConfigArn": "csc-1"}, "must be a code signing configuration's ARN"),
        ({"EventBusName": "arn:aws:events:us-east-1:000000000000:event-bus/x"}, "must be an event bus's name"),
        ({"SessionTags": "team"}, "must be key=value pairs"),
        ({"SourceIdentity": "a"}, "must be 2 to 64"),
        ({"ModelArns": "amazon.nova-micro-v1:0"}, "must be Bedrock ARNs"),
        ({"SourceAddresses": "203.0.113.7"}, "must be CIDR blocks"),
    ],
)
def test_a_value_of_the_wrong_form_is_refused(world, changed, message):
    parameters = parameters_of(world, str(uuid.uuid4()), changed)
    with pytest.raises(ClientError, match=message):
        create_change_set(
            world.cloud, TEMPLATE, parameters, StackName=f"refused-{uuid.uuid4().hex[:8]}", ChangeSetName="refused"
        )


def test_a_deployer_can_be_made_to_use_the_boundary(world):
    """docs/examples/deployer-boundary.json, beside a policy that allows everything."""
    boundary, iam = new_boundary(world), world.client("iam")
    demanded = (ROOT / "docs/examples/deployer-boundary.json").read_text()
    demanded = demanded.replace("arn:aws:iam::123456789012:policy/developer-boundary", boundary)
    user = f"deployer-{uuid.uuid4().hex[:8]}"
    iam.create_user(UserName=user)
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    iam.put_user_policy(UserName=user, PolicyName="everything", PolicyDocument=json.dumps(everything))
    iam.put_user_policy(UserName=user, PolicyName="boundary", PolicyDocument=demanded)
    key = iam.create_access_key(UserName=user)["AccessKey"]
    deployer = boto3.session.Session(key["AccessKeyId"], key["SecretAccessKey"], region_name=REGION)
    deployer = deployer.client("iam", endpoint_url=world.aws.url)
    role = {"RoleName": f"made-by-{user}", "AssumeRolePolicyDocument": json.dumps(everything)}
    another = new_boundary(world)
    # Such as the roles of a stack that an administrator has deployed before there was a boundary.
    without = {"RoleName": f"made-before-{user}", "PolicyName": "everything", "PolicyDocument": json.dumps(everything)}
    iam.create_role(RoleName=without["RoleName"], AssumeRolePolicyDocument=json.dumps(everything))
    for refused in (
        lambda: deployer.put_role_policy(**without),
        lambda: deployer.attach_role_policy(RoleName=without["RoleName"], PolicyArn=another),
        lambda: deployer.create_role(**role),
        lambda: deployer.create_role(**role, PermissionsBoundary=another),
        lambda: deployer.create_user(UserName=f"made-by-{user}"),
        lambda: deployer.create_policy_version(PolicyArn=boundary, PolicyDocument=json.dumps(everything)),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            refused()
    deployer.create_role(**role, PermissionsBoundary=boundary)
    with pytest.raises(ClientError, match="AccessDenied"):
        deployer.delete_role_permissions_boundary(RoleName=role["RoleName"])


def test_the_key_of_the_example_encrypts_what_the_stack_has(world, deployed):
    """The local AWS doesn't evaluate key policies, so this looks at who may use the key."""
    client, name = world.client("cloudformation"), f"key-{uuid.uuid4().hex[:8]}"
    client.create_stack(StackName=name, TemplateBody=(ROOT / "docs/examples/operations-key.yaml").read_text())
    client.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 0.2})
    [made] = client.describe_stacks(StackName=name)["Stacks"]
    key = made["Outputs"][0]["OutputValue"]
    policy = json.loads(world.client("kms").get_key_policy(KeyId=key, PolicyName="default")["Policy"])
    services = [statement["Principal"].get("Service") for statement in policy["Statement"]]
    assert services == [
        None,
        "logs.us-east-1.amazonaws.com",
        ["cloudwatch.amazonaws.com", "events.amazonaws.com"],
    ]
    outputs = deployed(world.new_ai_secret(), OperationsKmsKeyArn=key, KmsKeyArn=key)
    assert rotate_deployed(world, outputs)["outcome"] == "rotated"


def test_a_stack_with_an_event_bus_does_not_use_the_key_of_the_queue_itself(world, deployed):
    key = world.client("kms").create_key()["KeyMetadata"]["Arn"]
    outputs = deployed(world.new_ai_secret(), OperationsKmsKeyArn=key, EventBusName="default")
    assert "UseTheKeyOfTheQueue" not in execution_policy(world, outputs)
