"""The Terraform module: its variables become the template's parameters, and mistakes are found when it plans."""

import json
import os
import re
import shutil
import subprocess
import uuid
import zipfile

import pytest
from support.deployed_function import rotate_deployed, variables_of
from support.emulated_function import ARCHITECTURE
from support.paths import ROOT, TERRAFORM
from support.release_bundle import elf, make_bundle
from support.terraform_module import MODULE, Module, block, install_provider, plan_parameters

pytestmark = pytest.mark.skipif(not TERRAFORM.exists(), reason=f"{TERRAFORM} isn't there")

SECRET = "arn:aws:secretsmanager:us-east-1:123456789012:secret:braintrust-AbCdEf"
AI_SECRET = "5f1c9a52-8f0e-4a53-9d3b-2f6f1a7c4e10"
TOPIC = "arn:aws:sns:us-east-1:123456789012:alarms"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle whose function does nothing."""
    folder = tmp_path_factory.mktemp("terraform")
    (folder / "bootstrap").write_bytes(elf("x86_64"))
    return make_bundle(folder / "dist", "x86_64", folder / "bootstrap")


@pytest.fixture(scope="module")
def template(bundle):
    return json.loads((bundle / "cloudformation.json").read_text())


@pytest.fixture
def planned(bundle, tmp_path):
    """Plans with what is needed at least, and the given variables."""

    def planned(**variables):
        least = {"bundle": str(bundle), "braintrust_api_key_secret_arn": SECRET, "ai_secret_id": AI_SECRET}
        return plan_parameters(tmp_path, {name: value for name, value in (least | variables).items() if value is not None})

    return planned


def test_the_variables_become_parameters(planned):
    given = {
        "braintrust_api_url": "https://api-eu.braintrust.dev",
        "ai_secret_id": None,
        "ai_secret_name": "AWS Bedrock",
        "alarm_topic_arn": TOPIC,
        "parameters": {"Kind": "access_key", "VpcSubnetIds": "subnet-12345678,subnet-87654321"},
    }
    found = planned(**given)
    assert (found["outputs"]["problems"], found["errors"]) == ([], [])
    assert found["outputs"]["parameters"] == {
        "BraintrustApiUrl": "https://api-eu.braintrust.dev",
        "BraintrustApiKeySecretArn": SECRET,
        "AiSecretName": "AWS Bedrock",
        "AlarmTopicArn": TOPIC,
        "Architecture": "x86_64",
        "Kind": "access_key",
        "VpcSubnetIds": "subnet-12345678,subnet-87654321",
    }


def test_every_parameter_that_has_a_variable_is_one_of_the_template(template):
    mapped = re.findall(r'= \["(\w+)", var\.(\w+)\]', (MODULE / "parameters.tf").read_text())
    assert mapped
    for parameter, variable in mapped:
        assert parameter in template["Parameters"] and block("variables.tf", f'variable "{variable}"')


def test_every_default_of_the_template_is_accepted(planned, template):
    """Nothing in the template needs a check that the module can't do, or does differently."""
    own = {"Architecture", "CodeBucket", "CodeKey", "BraintrustApiKey", "BraintrustApiKeySecretArn", "BraintrustApiUrl"}
    own |= {"AiSecretId", "AiSecretName", "AlarmEmail", "AlarmTopicArn"}
    parameters = template["Parameters"].items()
    defaults = {name: str(one["Default"]) for name, one in parameters if name not in own}
    assert len(defaults) > 30
    assert planned(parameters=defaults)["outputs"]["problems"] == []


def test_what_a_stack_cannot_have_is_found_when_terraform_plans(planned):
    wrong = {
        "iam_user_name": "rotator",
        "Nonsense": "x",
        "CodeKey": "x",
        "BraintrustApiKey": "sk-secret",
        "AlarmEmail": "a@example.com",
        "Kind": "password",
        "RotateAfter": "a month",
        "VpcSubnetIds": "subnet-12345678,vpc-1",
        "DurationSeconds": "10",
        "TimeoutSeconds": "1000",
        "RotationDays": "often",
        "LogRetentionDays": "2",
    }
    found = planned(parameters=wrong, ai_secret_id="AWS Bedrock")["outputs"]["problems"]
    assert set(found) == {
        "iam_user_name is not a parameter of the template. Did you mean IamUserName?",
        "Nonsense is not a parameter of the template.",
        "Set the variable bundle instead of the parameter CodeKey.",
        "Set the variable braintrust_api_key instead of the parameter BraintrustApiKey.",
        "Set the variable alarm_email instead of the parameter AlarmEmail.",
        "AiSecretId must be a UUID, such as 5f1c9a52-8f0e-4a53-9d3b-2f6f1a7c4e10.",
        "Kind must be one of temporary, access_key, short_term_api_key, long_term_api_key.",
        "RotateAfter must be minutes, hours, or days, such as 90m, 12h, or 30d.",
        "VpcSubnetIds must be subnet IDs, separated by commas.",
        "DurationSeconds must be at least 900.",
        "TimeoutSeconds must be at most 900.",
        "RotationDays must be a number.",
        next(problem for problem in found if problem.startswith("LogRetentionDays must be one of 1, 3,")),
    }


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"bundle": "/nowhere"}, "There is no cloudformation.json in /nowhere. Download a release's files into it"),
        ({"architecture": "arm64"}, "There is no bedrock-braintrust-rotator-arm64.zip in"),
        ({"name": "my_stack"}, "The name must begin with a letter"),
        ({"braintrust_api_key_secret_arn": None}, "Specify either braintrust_api_key_secret_arn, or"),
        ({"braintrust_api_key_version": 1}, "Specify either braintrust_api_key_secret_arn, or"),
        ({"bundle": None}, "No value for required variable"),
    ],
)
def test_a_wrong_variable_is_refused(planned, variables, message):
    [error, *_] = planned(**variables)["errors"]
    assert message in error


def test_every_output_of_the_stack_that_the_module_names_exists_always(template):
    named = re.findall(r'outputs\["(\w+)"\]', (MODULE / "outputs.tf").read_text())
    assert len(named) >= 5
    for name in named:
        assert "Condition" not in template["Outputs"][name]


def test_the_stack_needs_no_more_than_the_capability_that_the_module_gives(template):
    assert 'capabilities = ["CAPABILITY_IAM"]' in (MODULE / "main.tf").read_text()
    names = {"RoleName", "UserName", "ManagedPolicyName", "GroupName", "InstanceProfileName"}
    for resource in template["Resources"].values():
        if resource["Type"].startswith("AWS::IAM::"):
            assert not names & set(resource["Properties"])


def test_an_unformatted_file_is_noticed(tmp_path):
    shutil.copytree(MODULE, tmp_path / "terraform")
    shutil.copytree(ROOT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    command = [str(TERRAFORM), str(tmp_path / "tools/terraform.py"), "fmt"]
    assert subprocess.run(command).returncode == 0
    file = tmp_path / "terraform/examples/complete/main.tf"
    file.write_text(file.read_text().replace("  source = ", "  source    = "))
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "examples/complete/main.tf" in done.stdout, done


def test_the_module_and_its_examples_are_valid(tmp_path):
    environment = os.environ | {"TF_CLI_CONFIG_FILE": str(install_provider(tmp_path))}
    command = [str(TERRAFORM), str(ROOT / "tools/terraform.py"), "validate"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    examples = [f"terraform/examples/{folder.name}: valid" for folder in sorted((MODULE / "examples").iterdir())]
    assert done.stdout.splitlines() == ["terraform: valid", *examples]


@pytest.fixture
def module(world, tmp_path):
    """The module on the local AWS, and the variables of a stack that can rotate there."""
    ai_secret = world.new_ai_secret()
    module = Module(tmp_path, world.cloud.aws.url, world.cloud.ministack.root)
    variables = {
        "bundle": str(make_bundle(tmp_path / "dist")),
        "architecture": ARCHITECTURE,
        "name": f"rotator-{uuid.uuid4().hex[:8]}",
        "braintrust_api_url": world.braintrust.url,
        "ai_secret_id": ai_secret,
        "alarm_email": "oncall@example.com",
        "parameters": {"Kind": "access_key", "RotateAfter": "7d"},
        "tags": {"CostCenter": "1234"},
    }
    return module, variables, ai_secret


def test_a_stack_is_created_rotates_changes_and_is_destroyed(world, module):
    module, variables, ai_secret = module
    variables["braintrust_api_key_secret_arn"] = world.api_key_secret
    applied = module.run("apply", **variables)
    assert applied["errors"] == []
    outputs = applied["outputs"]["outputs"]
    assert applied["outputs"]["function_name"] == outputs["FunctionName"]
    assert rotate_deployed(world, outputs)["outcome"] == "rotated"
    assert world.has_working_credentials(ai_secret)
    assert module.run("plan", **variables)["changes"] == []

    variables["parameters"] = {"Kind": "access_key", "RotateAfter": "14d"}
    assert module.run("plan", **variables)["changes"] == ["update aws_cloudformation_stack.rotator"]
    assert module.run("apply", **variables)["errors"] == []
    assert '"rotate_after":"14d"' in variables_of(world, outputs)["TARGETS"]

    for key in world.iam_keys({"kind": "access_key", "user_name": outputs["IamUserName"]}):
        world.client("iam").delete_access_key(UserName=outputs["IamUserName"], AccessKeyId=key)
    assert module.run("destroy", **variables)["errors"] == []
    assert variables["name"] not in [
        stack["StackName"]
        for stack in world.client("cloudformation").list_stacks()["StackSummaries"]
        if stack["StackStatus"] != "DELETE_COMPLETE"
    ]
    buckets = [bucket["Name"] for bucket in world.client("s3").list_buckets()["Buckets"]]
    assert not [name for name in buckets if name.startswith("bedrock-braintrust-rotator-")]


def test_an_api_key_reaches_the_function_without_the_state(world, module):
    module, variables, ai_secret = module
    variables |= {"braintrust_api_key": world.api_key, "braintrust_api_key_version": 1}
    applied = module.run("apply", **variables)
    assert applied["errors"] == []
    assert rotate_deployed(world, applied["outputs"]["outputs"])["outcome"] == "rotated"
    assert world.has_working_credentials(ai_secret)
    assert module.run("plan", **variables)["changes"] == []
    files = [path for path in module.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert {"terraform.tfstate", "plan"} <= {path.name for path in files}
    for file in files:
        assert world.api_key.encode() not in file.read_bytes(), file
    # A plan is a zip file.
    with zipfile.ZipFile(module.folder / "plan") as archive:
        assert all(world.api_key.encode() not in archive.read(name) for name in archive.namelist())

    variables["braintrust_api_key_version"] = 2
    changed = module.run("plan", **variables)["changes"]
    assert changed == ["update aws_secretsmanager_secret_version.api_key[0]"]


def test_an_existing_bucket_is_used(world, module):
    module, variables, ai_secret = module
    bucket = f"code-{uuid.uuid4().hex}"
    world.client("s3").create_bucket(Bucket=bucket)
    variables |= {"braintrust_api_key_secret_arn": world.api_key_secret, "code_bucket": bucket}
    changed = module.run("plan", **variables)["changes"]
    assert changed == [
        "create aws_cloudformation_stack.rotator", "create aws_s3_object.code", "create aws_s3_object.template",
    ]  # fmt: skip
    applied = module.run("apply", **variables)
    assert applied["errors"] == []
    assert rotate_deployed(world, applied["outputs"]["outputs"])["outcome"] == "rotated"


def test_values_can_come_from_resources_that_do_not_exist_yet(world, module):
    module, variables, ai_secret = module
    module.folder = module.folder.parent / "root"
    module.folder.mkdir()
    (module.folder / "main.tf").write_text(f"""
        resource "terraform_data" "api_key" {{
          input = "{world.api_key_secret}"
        }}
        resource "terraform_data" "topic" {{
          input = "{world.client("sns").create_topic(Name="alarms")["TopicArn"]}"
        }}
        module "rotator" {{
          source                        = "../terraform"
          bundle                        = "{variables["bundle"]}"
          architecture                  = "{ARCHITECTURE}"
          name                          = "{variables["name"]}"
          braintrust_api_url            = "{world.braintrust.url}"
          braintrust_api_key_secret_arn = terraform_data.api_key.output
          ai_secret_id                  = "{ai_secret}"
          alarm_topic_arn               = terraform_data.topic.output
        }}
        output "outputs" {{ value = module.rotator.outputs }}
    """)
    applied = module.run("apply")
    assert applied["errors"] == []
    assert rotate_deployed(world, applied["outputs"]["outputs"])["outcome"] == "rotated"
    assert world.has_working_credentials(ai_secret)


def test_a_stack_with_mistakes_is_not_planned(world, module):
    module, variables, _ = module
    variables["braintrust_api_key_secret_arn"] = world.api_key_secret
    variables["parameters"] = {"Kind": "password", "rotateafter": "7d"}
    [error] = module.run("plan", **variables)["errors"]
    assert "Kind must be one of temporary, access_key" in error
    assert "rotateafter is not a parameter of the template. Did you mean RotateAfter?" in error
