"""docs/deployer-policy.json allows everything that deploying, inspecting, and deleting the stack with deploy.py needs."""

import fnmatch
import json
import re
import uuid

import pytest
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER
from samcli.yamlhelper import yaml_parse
from support.local_cloud import REGION
from support.paths import ROOT
from support.revoked_run import end_earlier_sessions

POLICY = json.loads((ROOT / "docs/deployer-policy.json").read_text())
STACK = "bedrock-braintrust-rotator"
# The resources that sam's transform creates for the function and its schedule.
OF_SAM = {"AWS::Lambda::Function", "AWS::Lambda::EventInvokeConfig", "AWS::Lambda::Permission", "AWS::Events::Rule"}
# Actions that CloudFormation's handlers use only with properties that the template doesn't set.
UNUSED = [
    "ec2:*", "elasticfilesystem:*", "s3files:*", "firehose:*", "s3:REST.PUT.OBJECT",
    "kms:*",  # with KmsKeyArn: README says what to add
    "iam:*Group*", "iam:*LoginProfile", "iam:PutUserPolicy",
    "iam:DeleteUserPolicy", "iam:UpdateUser",
    "lambda:*Scaling*", "lambda:PassCapacityProvider", "lambda:AssociateRuntimeAlias",
    "lambda:PutRuntimeManagementConfig", "lambda:PutFunctionRecursionConfig", "lambda:PublishVersion",
    "logs:CreateLogDelivery", "logs:*ResourcePolicy", "logs:*IndexPolicy", "logs:P*Protection*",
    "logs:DeleteDataProtectionPolicy", "logs:PutBearerTokenAuthentication",
    "secretsmanager:*Replicat*", "secretsmanager:GetSecretValue", "sns:PutDataProtectionPolicy",
]  # fmt: skip


def allowed():
    """The policy's actions in lower case, because IAM ignores case."""
    actions = [statement["Action"] for statement in POLICY["Statement"]]
    return [action.lower() for some in actions for action in ([some] if isinstance(some, str) else some)]


def types():
    resources = yaml_parse((ROOT / "template.yaml").read_text())["Resources"].values()
    return sorted({resource["Type"] for resource in resources} - {"AWS::Serverless::Function"} | OF_SAM)


@pytest.mark.parametrize("type", types())
def test_the_policy_allows_what_cloudformation_does_for_each_resource(type):
    handlers = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, type).schema["handlers"]
    needed = {action for name, handler in handlers.items() if name != "list" for action in handler["permissions"]}
    assert needed
    for action in needed:
        patterns = allowed() + [pattern.lower() for pattern in UNUSED]
        assert any(fnmatch.fnmatch(action.lower(), pattern) for pattern in patterns), action


def test_the_policy_fits_a_managed_policy():
    assert len(json.dumps(POLICY, separators=(",", ":"))) <= 6144


@pytest.fixture
def deployer(world, installer):
    """deploy.py as an IAM user that has the policy without some of its statements."""
    iam = world.client("iam")

    def deployer(*without):
        name = f"deployer-{uuid.uuid4().hex[:8]}"
        iam.create_user(UserName=name)
        statements = [statement for statement in POLICY["Statement"] if statement["Sid"] not in without]
        policy = json.dumps({**POLICY, "Statement": statements})
        iam.put_user_policy(UserName=name, PolicyName="deployer", PolicyDocument=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        installer.caller = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
        installer.variables = {"BRAINTRUST_API_KEY": world.api_key}
        return installer

    return deployer


@pytest.fixture
def lines(world):
    """A stack with everything that needs permissions of its own when it is deleted."""
    return {
        "BraintrustApiUrl": world.braintrust.url,
        "AiSecretId": world.new_ai_secret(),
        "Kind": "access_key",
        "AlarmEmail": "on-call@example.com",
        "Tags": "team=ml",
    }


def test_a_user_with_the_policy_can_deploy_and_delete(world, deployer, lines):
    user = deployer()
    output, status = user.deploy(STACK, **lines)
    assert status == 0 and "No concurrency is reserved" not in output, output
    assert world.has_working_credentials(lines["AiSecretId"])
    output, status = user.run("--delete", "--yes")
    assert status == 0, output
    assert user.buckets() == []
    assert not [one for one in world.client("iam").list_users()["Users"] if one["UserName"].startswith(STACK)]


def test_a_user_with_the_policy_can_deploy_a_list_of_targets_and_replace_it(world, deployer):
    user, role = deployer(), world.cloud.new_role(trust="*")
    targets = [world.target(world.new_ai_secret_of_any_name(), name=name, role_arn=role) for name in ("old", "new")]
    output, status = user.deploy(STACK, targets[:1], BraintrustApiUrl=world.braintrust.url, RoleArns=role)
    assert status == 0, output
    output, status = user.run("--stack", STACK, *user.list_of(targets))
    assert status == 0 and "New or different: new\n" in output, output
    assert world.has_working_credentials(targets[1]["ai_secrets"][0]["id"])
    output, status = user.run("--delete", "--yes")
    assert status == 0 and user.buckets() == [], output


# The local CloudFormation doesn't check its caller's permissions for the template's resources. The test above does.
@pytest.mark.parametrize("sid", ["DeployTheStack", "UploadTheFunction", "MakeTheBucket"])
def test_a_user_without_one_of_the_statements_cannot_deploy(deployer, lines, sid):
    output, status = deployer(sid).deploy(STACK, **lines)
    assert status == 1 and "Nothing was deployed" in output, output
    assert re.search("AccessDenied|not authorized|may not use it", output), output


def test_a_user_who_may_not_delete_keys_cannot_delete_the_stack_of_a_user(deployer, lines):
    user = deployer("DeleteTheUsersKeys")
    output, status = user.deploy(STACK, **lines)
    assert status == 0, output
    output, status = user.run("--delete", "--yes")
    assert status == 2 and "AccessDenied" in output, output


def role_with_the_policy_of_a_revocation(world):
    names = [role["RoleName"] for role in world.client("iam").list_roles()["Roles"]]
    [role] = [name for name in names if name.startswith(f"{STACK}-BedrockRole")]
    end_earlier_sessions(world, role)
    return role


def test_a_user_with_the_policy_can_delete_the_stack_after_a_revocation(world, deployer, lines):
    user = deployer()
    output, status = user.deploy(STACK, **lines | {"Kind": "temporary"})
    assert status == 0, output
    role_with_the_policy_of_a_revocation(world)
    output, status = user.run("--delete", "--yes")
    assert status == 0, output


def test_a_user_who_may_not_delete_a_revocations_policy_gets_the_command(world, deployer, lines):
    user = deployer("DeleteTheRevocationsPolicy")
    output, status = user.deploy(STACK, **lines | {"Kind": "temporary"})
    assert status == 0, output
    role = role_with_the_policy_of_a_revocation(world)
    before, failed = user.run("--delete", "--yes")
    world.client("iam").delete_role_policy(RoleName=role, PolicyName="AWSRevokeOlderSessions")
    output, status = user.run("--delete", "--yes")
    assert failed == 2 and f"delete-role-policy --role-name {role}" in before, before
    # Without such a policy, nobody needs the permission.
    assert status == 0, output
