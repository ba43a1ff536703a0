"""The parameters of the template: what they change, and which combinations CloudFormation refuses."""

import json
import uuid

import pytest
from botocore.exceptions import ClientError
from samcli.yamlhelper import yaml_parse
from support.deployed_function import (
    change_target,
    execution_policy,
    parameters_of,
    refused_call,
    rotate_deployed,
    variables_of,
)
from support.deployment import create_change_set
from support.kinds import USER_BASED
from support.paths import ROOT, TEMPLATE
from support.proxy import ConnectProxy
from support.tls import private_ca
from support.upstream import form

SOME_ROLE = "arn:aws:iam::000000000000:role/some"
SOME_MODEL = "arn:aws:bedrock:*::foundation-model/amazon.nova-micro-v1:0"
SOME_KEY = "arn:aws:kms:us-east-1:000000000000:key/1234abcd-12ab-34cd-56ef-1234567890ab"
SOME_SECRET = "arn:aws:secretsmanager:us-east-1:000000000000:secret:some-AbCdEf"


def test_a_name_an_organization_an_external_id_and_a_region_reach_the_function(world, deployed):
    world.braintrust.add_key(world.api_key, orgs=("Acme", "Acme EU"))
    world.new_ai_secret("AWS Bedrock")
    ai_secret = world.new_ai_secret("AWS Bedrock", org_name="Acme EU")
    outputs = deployed(
        ai_secret,
        AiSecretId=None,
        AiSecretName="AWS Bedrock",
        BraintrustOrgName="Acme EU",
        ExternalId="from-braintrust",
        BedrockRegion="eu-central-1",
        DurationSeconds="900",
        TargetName="eu",
    )
    target = rotate_deployed(world, outputs)
    assert (target["name"], target["region"]) == ("eu", "eu-central-1")
    assert world.braintrust.ai_secrets[ai_secret]["metadata"]["region"] == "eu-central-1"
    assert world.has_working_credentials(ai_secret)
    [request] = world.aws_requests("sts:AssumeRole")
    assert (form(request)["ExternalId"], form(request)["DurationSeconds"]) == ("from-braintrust", "900")
    change_target(world, outputs, external_id="from-somebody-else")
    assert refused_call(world, outputs) == "sts:AssumeRole"


def test_a_project_reaches_the_function(world, deployed):
    project = world.braintrust.add_project("support-bot")
    ai_secret, provider = world.new_ai_secret(), world.new_project_provider(project=project)["id"]
    before = world.braintrust.snapshot()[ai_secret]
    outputs = deployed(None, AiSecretName="AWS Bedrock", BraintrustOrgName="Acme", BraintrustProject="support-bot")
    assert rotate_deployed(world, outputs)["ai_secrets"][0]["id"] == provider
    assert world.project_can_call_bedrock(project)
    assert world.braintrust.snapshot()[ai_secret] == before


def test_an_organization_goes_with_a_projects_name_beside_an_id(world, deployed):
    provider = world.new_project_provider(project=world.braintrust.add_project("support-bot"))["id"]
    outputs = deployed(provider, BraintrustOrgName="Acme", BraintrustProject="support-bot")
    assert rotate_deployed(world, outputs)["outcome"] == "rotated"
    assert world.has_working_credentials(provider)


def test_an_existing_role_and_an_existing_secret_are_used(world, deployed):
    ai_secret = world.new_ai_secret()
    role = world.cloud.new_role(trust="*")
    outputs = deployed(
        ai_secret, BedrockRoleArn=role, BraintrustApiKey=None, BraintrustApiKeySecretArn=world.api_key_secret
    )
    assert (outputs["BedrockRoleArn"], outputs["BraintrustApiKeySecretArn"]) == (role, world.api_key_secret)
    assert rotate_deployed(world, outputs)["outcome"] == "rotated"
    assert world.has_working_credentials(ai_secret)


@pytest.mark.parametrize("kind", USER_BASED)
def test_an_existing_user_and_an_existing_staged_secret_are_used(world, deployed, kind):
    ai_secret, user, secret = world.new_ai_secret(), world.new_user(), world.new_staged_secret()
    outputs = deployed(ai_secret, Kind=kind, IamUserName=user, StagedSecretArn=secret)
    assert (outputs["IamUserName"], outputs["StagedSecretArn"]) == (user, secret)
    assert rotate_deployed(world, outputs)["outcome"] == "rotated"
    assert list(world.iam_keys({"kind": kind, "user_name": user})) == [
        world.staged_value({"secret_id": secret})["credential_id"]
    ]
    assert world.has_working_credentials(ai_secret)


def test_the_lifetimes_of_user_based_credentials_reach_the_function(world, deployed):
    outputs = deployed(
        world.new_ai_secret(), Kind="long_term_api_key", RotateAfter="12h", Overlap="2h", CredentialAgeDays="7"
    )
    [target] = json.loads(variables_of(world, outputs)["TARGETS"])
    assert (target["rotate_after"], target["overlap"]) == ("12h", "2h")
    key = world.aws.api_keys[rotate_deployed(world, outputs)["credential_id"]]
    assert (key.expires - key.created).days == 7


def test_a_spread_reaches_the_function(world, deployed):
    outputs = deployed(world.new_ai_secret(), SpreadSeconds="300", TimeoutSeconds="900")
    assert variables_of(world, outputs)["SPREAD_SECONDS"] == "300"
    # A single target is never delayed.
    assert rotate_deployed(world, outputs)["outcome"] == "rotated"


def test_a_customer_managed_key_encrypts_both_secrets(world, deployed):
    key = world.client("kms").create_key()["KeyMetadata"]["Arn"]
    outputs = deployed(world.new_ai_secret(), Kind="access_key", KmsKeyArn=key)
    secrets = [outputs["BraintrustApiKeySecretArn"], outputs["StagedSecretArn"]]
    for secret in secrets:
        assert world.client("secretsmanager").describe_secret(SecretId=secret)["KmsKeyId"] == key
    # The local AWS doesn't encrypt anything, so it can't show whether this is enough.
    statement = execution_policy(world, outputs)["UseTheKeyOfTheSecrets"]
    assert (statement["Action"], statement["Resource"]) == (["kms:Decrypt", "kms:GenerateDataKey"], key)
    assert statement["Condition"] == {"StringLike": {"kms:EncryptionContext:SecretARN": secrets}}
    assert rotate_deployed(world, outputs)["outcome"] == "rotated"


def test_a_proxy_and_private_cas_reach_the_function(world, deployed, tmp_path):
    proxy = ConnectProxy({}, refuses_with="403 Forbidden").start()
    world.servers.append(proxy)
    pem = private_ca(tmp_path, "127.0.0.1")[1].read_text()
    parameters = {"HttpsProxy": proxy.url, "NoProxy": ".example.com,10.0.0.0/8"}
    outputs = deployed(world.new_ai_secret(), **parameters, AwsCaBundle=pem, BraintrustCaBundle=pem)
    variables = variables_of(world, outputs)
    assert (variables["HTTPS_PROXY"], variables["NO_PROXY"]) == (proxy.url, parameters["NoProxy"])
    assert (variables["AWS_CA_BUNDLE"], variables["BRAINTRUST_CA_BUNDLE"]) == (pem, pem)
    # All servers are at loopback addresses.
    assert rotate_deployed(world, outputs)["outcome"] == "rotated"
    assert proxy.connects == []


def test_variables_of_the_network_are_left_out_if_their_parameters_are_empty(world, deployed):
    variables = variables_of(world, deployed(world.new_ai_secret()))
    assert not {"HTTPS_PROXY", "NO_PROXY", "AWS_CA_BUNDLE", "BRAINTRUST_CA_BUNDLE"} & set(variables)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"BraintrustApiKey": None}, "BraintrustApiKey or BraintrustApiKeySecretArn"),
        ({"BraintrustApiKeySecretArn": SOME_SECRET}, "BraintrustApiKey or BraintrustApiKeySecretArn, not both"),
        ({"AiSecretId": None}, "AiSecretId or AiSecretName"),
        ({"AiSecretName": "AWS Bedrock"}, "AiSecretId or AiSecretName, not both"),
        ({"BraintrustOrgName": "Acme"}, "BraintrustOrgName.* AiSecretName"),
        ({"IamUserName": "somebody"}, "IamUserName.* access_key and long_term_api_key"),
        ({"RotationDays": "30"}, "RotationDays.* access_key and long_term_api_key"),
        ({"Kind": "short_term_api_key", "RotationDays": "1"}, "RotationDays.* access_key and long_term_api_key"),
        (
            {"Kind": "access_key", "BedrockRoleArn": "arn:aws:iam::000000000000:role/x"},
            "BedrockRoleArn.* temporary and short_term_api_key",
        ),
        (
            {"Kind": "long_term_api_key", "ExternalId": "from-braintrust"},
            "ExternalId.* temporary and short_term_api_key",
        ),
        ({"RotateApiKey": "true"}, "RotateApiKey.* BraintrustApiKeySecretArn"),
        (
            {"BraintrustApiKey": None, "BraintrustApiKeySecretArn": SOME_SECRET, "StagedSecretArn": SOME_SECRET},
            "StagedSecretArn and BraintrustApiKeySecretArn",
        ),
        ({"RoleArns": SOME_ROLE}, "RoleArns.* Targets"),
        ({"AllowSessionTags": "true"}, "AllowSessionTags.* Targets"),
        ({"Targets": "[{}]"}, "With Targets.* AiSecretId, AiSecretName"),
        (
            {"Targets": "[{}]", "AiSecretId": None, "BraintrustProject": "support-bot", "RoleArns": SOME_ROLE},
            "BraintrustProject empty",
        ),
        ({"TargetsSecretArn": SOME_SECRET}, "With Targets.* AiSecretId, AiSecretName"),
        ({"TargetsSecretArn": SOME_SECRET, "AiSecretId": None}, "With Targets.* RoleArns or IamUserArns"),
        (
            {"TargetsSecretArn": SOME_SECRET, "AiSecretId": None, "Targets": "[{}]"},
            "one of Targets, TargetsSecretArn, and TargetsBucket",
        ),
        (
            {"TargetsSecretArn": SOME_SECRET, "AiSecretId": None, "TargetsBucket": "acme-rotator"},
            "one of Targets, TargetsSecretArn, and TargetsBucket",
        ),
        ({"TargetsBucket": "acme-rotator"}, "With Targets.* AiSecretId, AiSecretName"),
        ({"TargetsBucket": "acme-rotator", "AiSecretId": None}, "With Targets.* RoleArns or IamUserArns"),
        ({"TargetsKey": "fleet.json"}, "TargetsKey and TargetsKmsKeyArn go with TargetsBucket"),
        (
            {"Targets": "[{}]", "AiSecretId": None, "RoleArns": SOME_ROLE, "TargetsKmsKeyArn": SOME_KEY},
            "TargetsKey and TargetsKmsKeyArn go with TargetsBucket",
        ),
        ({"RoleArns": "arn:aws:iam::*:role/*"}, "RoleArns"),
        ({"StagedSecretArns": "arn:aws:secretsmanager:us-east-1:000000000000:secret:*"}, "StagedSecretArns"),
        ({"Targets": "[{}]", "AiSecretId": None}, "With Targets.* RoleArns or IamUserArns"),
        (
            {"Targets": "[{}]", "AiSecretId": None, "RoleArns": SOME_ROLE, "Kind": "access_key"},
            "With Targets.* Kind, BedrockRegion",
        ),
        (
            {"Targets": "[{}]", "AiSecretId": None, "RoleArns": SOME_ROLE, "AllowMantle": "true"},
            "With Targets.* AllowMantle",
        ),
        (
            {"Targets": "[{}]", "AiSecretId": None, "RoleArns": SOME_ROLE, "EndToEndModelId": "amazon.nova-micro-v1:0"},
            "With Targets.* EndToEndModelId",
        ),
        (
            {"Targets": "[{}]", "AiSecretId": None, "RoleArns": SOME_ROLE, "StagedSecretArn": SOME_SECRET},
            "With Targets.* StagedSecretArns",
        ),
        (
            {"AlarmTopicArn": "arn:aws:sns:us-east-1:000000000000:a", "AlarmEmail": "a@example.com"},
            "AlarmEmail.* AlarmTopicArn",
        ),
        ({"MetricsNamespace": "AWS/Lambda"}, "AWS/"),
        ({"NoProxy": ".example.com"}, "NoProxy.* HttpsProxy"),
        ({"HttpsProxy": "socks5://proxy.example.com:1080"}, "http:// or https://"),
        ({"AwsCaBundle": "ca.pem"}, "certificates in PEM, or an absolute path"),
        ({"ModelArns": SOME_MODEL, "BedrockRoleArn": SOME_ROLE}, "ModelArns.* this stack creates"),
        ({"Regions": "us-east-1", "Kind": "access_key", "IamUserName": "somebody"}, "Regions.* this stack creates"),
        ({"AllowMantle": "true", "BedrockRoleArn": SOME_ROLE}, "AllowMantle.* this stack creates"),
        ({"Regions": "eu-west-1,us-west-2"}, "Regions must include BedrockRegion"),
        ({"Regions": "us-east-1", "BedrockRegion": "eu-west-1"}, "Regions must include BedrockRegion"),
        ({"SourceAddresses": "203.0.113.7/32", "ProbeModelId": "amazon.nova-micro-v1:0"}, "leave ProbeModelId empty"),
        ({"Kind": "access_key", "SourceIdentity": "ml"}, "SourceIdentity and SessionTags are only"),
        ({"Kind": "access_key", "SessionTags": "team=ml"}, "SourceIdentity and SessionTags are only"),
        (
            {"Targets": "[{}]", "AiSecretId": None, "RoleArns": SOME_ROLE, "SourceAddresses": "203.0.113.7/32"},
            "With Targets.* no role for Bedrock",
        ),
        (
            {"Targets": "[{}]", "AiSecretId": None, "RoleArns": SOME_ROLE, "SessionTags": "team=ml"},
            "With Targets.* AllowSessionTags",
        ),
        ({"AllowSessionRevocation": "true", "BedrockRoleArn": SOME_ROLE}, "AllowSessionRevocation.* this stack creates"),
        (
            {
                "AllowSessionRevocation": "true",
                "PermissionsBoundaryArn": "arn:aws:iam::000000000000:policy/developer-boundary",
            },
            "AllowSessionRevocation.* PermissionsBoundaryArn",
        ),
        ({"SpreadSeconds": "60"}, "SpreadSeconds requires TimeoutSeconds 900"),
        ({"SpreadSeconds": "301", "TimeoutSeconds": "900"}, "SpreadSeconds"),
        ({"MetricsPerTarget": "no"}, "MetricsPerTarget"),
        ({"VpcSubnetIds": "subnet-01234567"}, "VpcSubnetIds and VpcSecurityGroupIds"),
        ({"VpcSecurityGroupIds": "sg-01234567"}, "VpcSubnetIds and VpcSecurityGroupIds"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(world, changed, message):
    parameters = parameters_of(world, str(uuid.uuid4()), changed)
    name = f"refused-{uuid.uuid4().hex[:8]}"
    with pytest.raises(ClientError, match=message):
        create_change_set(world.cloud, TEMPLATE, parameters, StackName=name, ChangeSetName="refused")


def test_every_parameter_is_in_one_group_of_the_console():
    template = yaml_parse((ROOT / "template.yaml").read_text())
    groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    grouped = [name for group in groups for name in group["Parameters"]]
    assert sorted(grouped) == sorted(template["Parameters"])


def test_every_parameter_says_what_it_is_for_and_what_it_accepts():
    for name, parameter in yaml_parse((ROOT / "template.yaml").read_text())["Parameters"].items():
        assert parameter["Description"].endswith("."), name
        if "AllowedPattern" in parameter:
            assert parameter["ConstraintDescription"].startswith("must "), name
