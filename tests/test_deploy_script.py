"""deploy.py deploys into the local AWS: by six answers at a terminal, and by a file."""

import contextlib
import json
import re
import signal
import time
import uuid

import pytest
from support.deployed_function import variables_of
from support.end_to_end import MODEL
from support.faults import Delay
from support.http_messages import Reply
from support.installer import AWS_CLI
from support.revoked_run import end_earlier_sessions

DEFAULT_STACK = "bedrock-braintrust-rotator"
NOT_ADMIN = Reply(403, "Forbidden: only organization admins can do this", content_type="text/plain")


@pytest.fixture
def stack():
    return f"rotator-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def answers(world):
    """The answers that deploy with the first provider."""

    def answers(**changed):
        usual = {"1": "", "2": world.braintrust.url, "3": world.api_key, "4": "1", "5": "on-call@example.com", "6": ""}
        return [(f"{number}. ", answer) for number, answer in {**usual, **changed}.items()]

    return answers


@pytest.fixture
def status_of(world):
    def status_of(stack):
        found = world.client("cloudformation").describe_stacks()["Stacks"]
        return {one["StackName"]: one["StackStatus"] for one in found}.get(stack)

    return status_of


@pytest.fixture
def outputs_of(world):
    def outputs_of(stack):
        [found] = world.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
        return {one["OutputKey"]: one["OutputValue"] for one in found["Outputs"]}

    return outputs_of


@pytest.fixture
def lines(world):
    """The least that a file needs."""

    def lines(ai_secret=None, **changed):
        return {"BraintrustApiUrl": world.braintrust.url, "AiSecretId": ai_secret or world.new_ai_secret(), **changed}

    return lines


@pytest.fixture
def with_key(installer, world):
    """The installer as CI runs it: the API key is in the environment."""
    installer.variables["BRAINTRUST_API_KEY"] = world.api_key
    return installer


def test_six_answers_deploy_and_rotate_in_two_minutes(installer, world, answers):
    ai_secret = world.new_ai_secret()
    started = time.monotonic()
    screen, status = installer.type(answers=answers())
    assert status == 0, screen
    assert time.monotonic() - started < 120
    assert len(re.findall(r"^[0-9]\. ", screen, re.MULTILINE)) == 6
    assert world.has_working_credentials(ai_secret)
    assert world.api_key not in screen
    for shown in ("Account 000000000000", "Organization: Acme", "$4.00 a month", "rotated", "#dashboards/dashboard/"):
        assert shown in screen
    assert "Confirm the email from AWS Notifications to on-call@example.com" in screen


def test_the_answers_are_kept_without_the_key(installer, world, answers):
    ai_secret = world.new_ai_secret()
    installer.type(answers=answers())
    kept = installer.config(DEFAULT_STACK)
    text = kept.read_text()
    for line in (
        "Region: us-east-1",
        f"AiSecretId: {ai_secret}",
        "AlarmEmail: on-call@example.com",
        "#RotateAfter: 30d",
    ):
        assert f"\n{line}\n" in text
    assert world.api_key not in text
    assert kept.stat().st_mode & 0o777 == 0o600


def test_a_second_run_keeps_every_answer_that_is_left_empty(installer, world, answers):
    world.new_ai_secret()
    installer.type(answers=answers())
    before = installer.config(DEFAULT_STACK).read_text()
    screen, status = installer.type(answers=[(f"{number}. ", "") for number in range(1, 7)])
    assert status == 0 and "Nothing to change" in screen, screen
    assert installer.config(DEFAULT_STACK).read_text() == before


def test_each_wrong_answer_is_explained_and_asked_again(installer, world, answers, status_of):
    world.new_ai_secret()
    world.braintrust.add_ai_secret("Own role", metadata={"auth_type": "assume_role"})
    wrong = [
        ("1. Region", "nowhere", "must be a region, such as us-east-1"),
        ("2. ", "ftp://example.com", "must be a URL that begins with https://"),
        ("2. ", "http://example.com", "must be a URL that begins with https://"),
        ("2. ", "http://127.0.0.1:9", "can't be reached"),
        ("2. ", world.aws.url, "isn't Braintrust's API"),
        ("2. ", world.braintrust.url, ""),
        ("3. ", "", "must be an API key"),
        ("3. ", "sk-unknown", "refuses the key"),
        ("3. ", "two words", "must be the key alone"),
        ("3. ", "arn:aws:secretsmanager:us-east-1:000000000000:secret:short", "six random characters"),
        ("3. ", "arn:aws:secretsmanager:eu-west-1:000000000000:secret:far-AbCdEf", "must be in us-east-1"),
        ("3. ", world.api_key, ""),
        ("4. ", "3", "must be a number from 1 to 2"),
        ("4. ", "2", "assumes a role by itself"),
        ("4. ", "1", ""),
        ("5. ", "on-call", "must be an email address"),
        ("5. ", "arn:aws:sns:us-east-1:1:x", "must be a topic's ARN"),
        ("5. ", "none", ""),
        ("6. ", "maybe", "must be y or n"),
        ("6. ", "n", "Nothing was deployed."),
    ]
    typed = [("1. Region", wrong[0][1]), ("1. Region", "")] + [one[:2] for one in wrong[1:]]
    screen, status = installer.type(answers=typed)
    assert status == 1
    for _, _, explained in wrong:
        assert explained in screen
    assert status_of(DEFAULT_STACK) is None
    assert installer.buckets() == []
    assert not installer.config(DEFAULT_STACK).exists()


def test_without_a_provider_it_says_how_to_make_one_and_looks_again(installer, world, answers):
    made = []

    def make_one():
        made.append(world.new_ai_secret())
        return ""

    typed = answers()
    screen, status = installer.type(answers=[*typed[:3], ("Look again", make_one), *typed[3:]])
    assert status == 0 and "Settings, AI providers" in screen, screen
    assert world.has_working_credentials(made[0])


def test_the_key_may_be_in_a_secret(installer, world, answers, outputs_of):
    ai_secret = world.new_ai_secret()
    screen, status = installer.type(answers=answers(**{"3": world.api_key_secret}))
    assert status == 0, screen
    assert outputs_of(DEFAULT_STACK)["BraintrustApiKeySecretArn"] == world.api_key_secret
    assert f"BraintrustApiKeySecretArn: {world.api_key_secret}" in installer.config(DEFAULT_STACK).read_text()
    assert world.has_working_credentials(ai_secret)
    # An update by the file keeps the secret.
    screen, status = installer.run("--config", f"deploy/{DEFAULT_STACK}.yaml")
    assert status == 0 and "Nothing to change" in screen, screen


def test_providers_of_all_pages_are_listed_with_their_organizations(installer, world, answers):
    world.braintrust.add_key(world.api_key, orgs=("Acme", "Acme EU"))
    for number in range(101):
        world.braintrust.add_ai_secret(f"Bedrock {number}", org_name="Acme EU")
    world.braintrust.add_ai_secret("OpenAI", type="openai")
    chosen = world.new_ai_secret(name="The last")
    screen, status = installer.type(answers=answers(**{"4": "102", "6": "n"}))
    assert status == 1
    assert "Bedrock providers: 102" in screen and "Acme EU" in screen and "OpenAI" not in screen
    assert f"The last ({chosen})" in screen


def test_the_first_rotation_keeps_the_providers_region(installer, world, answers):
    metadata = {"auth_type": "iam_credentials", "access_key": "AKIAOLD", "region": "eu-central-1"}
    ai_secret = world.new_ai_secret(name="AWS Bedrock EU", metadata=metadata)
    screen, status = installer.type(answers=answers())
    assert status == 0 and "Bedrock region: eu-central-1, as in Braintrust" in screen, screen
    assert "\nBedrockRegion: eu-central-1\n" in installer.config(DEFAULT_STACK).read_text()
    assert world.braintrust.ai_secrets[ai_secret]["metadata"]["region"] == "eu-central-1"
    assert "Healthy, 6 checks ok, 1 proven by the rotation" in screen


def test_no_secret_is_on_a_command_line(installer, world, answers, tmp_path, monkeypatch):
    # Stands before the AWS CLI in PATH, and writes down how it was called.
    recorder = tmp_path / "bin/aws"
    recorder.parent.mkdir()
    recorder.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nexec {AWS_CLI} "$@"\n')
    recorder.chmod(0o700)
    monkeypatch.setattr("support.installer.AWS_CLI", recorder)
    world.new_ai_secret()
    screen, status = installer.type(answers=answers())
    assert status == 0, screen
    calls = (tmp_path / "calls").read_text()
    assert "create-change-set" in calls and world.api_key not in calls
    # Nor does a file with it stay.
    assert not [
        file for file in tmp_path.rglob("*") if file.is_file() and world.api_key in file.read_text(errors="ignore")
    ]


def test_ctrl_c_says_that_nothing_was_deployed(installer, world, status_of):
    screen, status = installer.type(answers=[("1. ", ""), ("2. ", "^C")])
    assert status == 1 and "Nothing was deployed." in screen
    assert status_of(DEFAULT_STACK) is None


def test_ctrl_c_during_the_deployment_says_that_cloudformation_continues(installer, world, answers, status_of):
    world.new_ai_secret()
    # Long enough for the key press to meet the wait for CloudFormation.
    world.aws.fail("cloudformation:DescribeStackEvents", Delay(3), times=None)

    def once_it_is_under_way():
        while status_of(DEFAULT_STACK) in (None, "REVIEW_IN_PROGRESS"):
            time.sleep(0.1)
        return "^C"

    screen, status = installer.type(answers=[*answers(), ("Uploading", once_it_is_under_way)])
    assert status == 2 and "Interrupted. CloudFormation continues without deploy.py" in screen, screen


def test_without_a_terminal_it_says_what_to_do(installer):
    output, status = installer.run()
    assert status == 1
    assert "--config" in output and "Nothing was deployed." in output


def test_a_file_deploys_and_changes_one_parameter(with_key, world, stack, lines, outputs_of):
    given = lines(ExternalId="acme-bedrock", Tags="team=ml, stage=prod")
    output, status = with_key.deploy(stack, **given)
    assert status == 0, output
    [deployed] = world.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    assert {"Key": "team", "Value": "ml"} in deployed["Tags"]

    # In CI, the key is needed only once, and parameters that are left out keep their values.
    del with_key.variables["BRAINTRUST_API_KEY"]
    output, status = with_key.deploy(stack, LogRetentionDays="7")
    assert status == 0, output
    assert "LogRetentionDays: '30' becomes '7'" in output and "ExternalId=acme-bedrock" in output
    assert world.has_working_credentials(given["AiSecretId"])
    groups = world.client("logs").describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{stack}")["logGroups"]
    assert groups[0]["retentionInDays"] == 7
    [target] = json.loads(variables_of(world, outputs_of(stack))["TARGETS"])
    assert target["external_id"] == "acme-bedrock"


def test_a_file_deploys_a_projects_provider_that_is_proven_through_braintrust(with_key, world, stack):
    project = world.braintrust.add_project("support-bot")
    provider = world.new_project_provider(project=project)["id"]
    given = {"BraintrustApiUrl": world.braintrust.url, "AiSecretName": "AWS Bedrock", "BraintrustOrgName": "Acme"}
    output, status = with_key.deploy(stack, **given, BraintrustProject="support-bot", EndToEndModelId=MODEL)
    assert status == 0, output
    assert "AWS Bedrock, of the project support-bot" in output and MODEL in output
    assert "can't be named in a request" in output and "proven by the rotation" not in output
    assert world.has_working_credentials(provider)

    # An ID beside the organization of the project's name.
    output, status = with_key.deploy(stack, AiSecretId=provider)
    assert status == 0 and "AiSecretName: 'AWS Bedrock' becomes ''" in output, output


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"AlarmMail": "a@example.com"}, "line 3: AlarmMail is not a parameter. Did you mean AlarmEmail?"),
        ({"LogRetentionDays": "31"}, 'line 3: LogRetentionDays: found "31", but it must be one of 1, 3, 5'),
        ({"TimeoutSeconds": "5"}, 'TimeoutSeconds: found "5", but it must be 10 or more'),
        ({"AlarmEmail": "on-call"}, "must be an email address"),
        ({"RoleArns": "[a, b]"}, "A value must be a single text"),
        ({"BraintrustApiKey": "sk-secret"}, "BRAINTRUST_API_KEY instead"),
        ({"CodeKey": "code.zip"}, "CodeKey is set by deploy.py itself"),
        ({"IamUserName": "braintrust"}, "IamUserName is only for the kinds access_key and long_term_api_key"),
        ({"Region": "nowhere"}, 'Region: found "nowhere", but it must be a region, such as us-east-1'),
        ({"Tags": "team"}, "Write key=value"),
        ({"Architecture": "riscv"}, "must be one of x86_64, arm64"),
        ({"EndToEndModelId": "nova micro"}, 'EndToEndModelId: found "nova micro", but it must be the name of a model'),
    ],
)
def test_a_mistake_in_the_file_deploys_nothing(with_key, stack, lines, status_of, changed, message):
    output, status = with_key.deploy(stack, **lines(**changed))
    assert status == 1, output
    assert message in output and "Nothing was deployed." in output
    assert "sk-secret" not in output
    assert status_of(stack) is None


def test_a_new_stack_without_a_key_names_the_variable(installer, stack, lines, status_of):
    output, status = installer.deploy(stack, **lines())
    assert status == 1 and "BRAINTRUST_API_KEY" in output
    assert status_of(stack) is None


def test_credentials_that_have_expired_are_named_as_such(installer, stack, lines):
    installer.caller = {"AWS_ACCESS_KEY_ID": "AKIAUNKNOWN", "AWS_SECRET_ACCESS_KEY": "unknown"}
    output, status = installer.deploy(stack, **lines())
    assert status == 1 and "AWS doesn't accept your credentials" in output and "Nothing was deployed." in output


@pytest.mark.parametrize(("unreserved", "reserves"), [(101, True), (100, False)])
def test_concurrency_is_reserved_only_if_the_account_can(with_key, world, stack, lines, unreserved, reserves):
    settings = {"AccountLimit": {"UnreservedConcurrentExecutions": unreserved}, "AccountUsage": {}}
    world.aws.fail(lambda request: request.path.endswith("/account-settings"), Reply(200, json.dumps(settings)))
    output, status = with_key.deploy(stack, **lines())
    assert status == 0, output
    [deployed] = world.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    parameters = {one["ParameterKey"]: one["ParameterValue"] for one in deployed["Parameters"]}
    assert parameters["ReservedConcurrency"] == ("1" if reserves else "0")
    assert ("No concurrency is reserved" in output) is not reserves


def test_the_bucket_is_private_and_demands_tls(with_key, world, stack, lines):
    output, status = with_key.deploy(stack, **lines())
    assert status == 0, output
    s3 = world.client("s3")
    [name] = with_key.buckets()
    assert name == "bedrock-braintrust-rotator-000000000000-us-east-1"
    assert all(s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"].values())
    [rule] = s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    [statement] = json.loads(s3.get_bucket_policy(Bucket=name)["Policy"])["Statement"]
    assert statement["Effect"] == "Deny" and statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_a_bucket_of_another_account_is_refused(with_key, world, stack, lines, status_of):
    world.aws.fail(lambda request: request.method == "HEAD", Reply(403, ""))
    output, status = with_key.deploy(stack, **lines())
    assert status == 1 and "belongs to another account" in output, output
    assert status_of(stack) is None


def test_a_failed_creation_names_the_first_failure_and_the_next_run_starts_again(with_key, stack, lines, status_of):
    given = lines(Kind="access_key")
    missing = "arn:aws:secretsmanager:us-east-1:000000000000:secret:missing-AbCdEf"
    output, status = with_key.deploy(stack, **given, StagedSecretArn=missing, RotationDays="30")
    assert status == 1 and "RotationSchedule (AWS::SecretsManager::RotationSchedule): " in output, output
    assert "Nothing was deployed." in output
    assert status_of(stack) == "ROLLBACK_COMPLETE"
    output, status = with_key.deploy(stack, **given)
    assert status == 0 and "Removing what a failed deployment left behind" in output, output


def test_a_stack_that_was_never_created_can_be_deleted(with_key, world, stack, lines, status_of):
    missing = "arn:aws:secretsmanager:us-east-1:000000000000:secret:missing-AbCdEf"
    with_key.deploy(stack, **lines(Kind="access_key", StagedSecretArn=missing, RotationDays="30"))
    assert status_of(stack) == "ROLLBACK_COMPLETE"
    output, status = with_key.run("--stack", stack, "--delete", "--yes")
    assert status == 0, output
    assert status_of(stack) is None and with_key.buckets() == []


def test_a_failed_update_says_that_the_stack_is_as_before(with_key, world, stack, lines, status_of, outputs_of):
    given = lines(Kind="access_key")
    output, status = with_key.deploy(stack, **given)
    assert status == 0, output
    before = variables_of(world, outputs_of(stack))
    missing = "arn:aws:secretsmanager:us-east-1:000000000000:secret:missing-AbCdEf"
    output, status = with_key.deploy(stack, **given, StagedSecretArn=missing, RotationDays="30")
    assert status == 1 and "has restored what was deployed before" in output, output
    assert status_of(stack) == "UPDATE_ROLLBACK_COMPLETE"
    assert variables_of(world, outputs_of(stack)) == before


def test_a_first_rotation_that_fails_is_status_2_and_shows_the_remedy(with_key, world, stack, lines, status_of):
    world.braintrust.add_key(world.api_key, admin=False)
    output, status = with_key.deploy(stack, **lines())
    assert status == 2 and "permission: braintrust" in output and "something is wrong" in output, output
    assert status_of(stack) == "CREATE_COMPLETE"


def test_a_role_of_another_account_comes_with_its_next_step(with_key, stack, lines, outputs_of):
    role = "arn:aws:iam::111122223333:role/braintrust-bedrock"
    output, status = with_key.deploy(stack, **lines(BedrockRoleArn=role, ExternalId="acme"))
    assert status == 2, output
    assert "credentials of the account 111122223333" in output and "bedrock-role.yaml" in output
    assert f"ExecutionRoleArn={outputs_of(stack)['ExecutionRoleArn']} ExternalId='acme'" in output


@pytest.mark.parametrize("kind", ["access_key", "long_term_api_key"])
def test_delete_leaves_nothing(with_key, world, stack, lines, status_of, outputs_of, kind):
    given = lines(Kind=kind)
    users_before = world.client("iam").list_users()["Users"]
    output, status = with_key.deploy(stack, **given)
    assert status == 0, output
    user = outputs_of(stack)["IamUserName"]
    output, status = with_key.run("--stack", stack, "--delete", "--yes")
    assert status == 0 and user in output, output
    assert status_of(stack) is None
    assert world.client("iam").list_users()["Users"] == users_before
    assert with_key.buckets() == []
    secrets = world.client("secretsmanager").list_secrets(IncludePlannedDeletion=True)["SecretList"]
    assert not [secret for secret in secrets if stack in secret["Name"]]
    assert not world.has_working_credentials(given["AiSecretId"])


def test_delete_removes_the_policy_of_a_revocation_first(with_key, world, stack, lines, status_of, outputs_of):
    output, status = with_key.deploy(stack, **lines())
    assert status == 0, output
    role = outputs_of(stack)["BedrockRoleArn"].rpartition("/")[2]
    end_earlier_sessions(world, role)
    output, status = with_key.run("--stack", stack, "--delete", "--yes")
    assert status == 0 and role in output, output
    assert status_of(stack) is None
    assert role not in [one["RoleName"] for one in world.client("iam").list_roles()["Roles"]]


def test_delete_asks_for_the_stacks_name(with_key, stack, lines, status_of):
    output, status = with_key.deploy(stack, **lines())
    assert status == 0, output
    screen, status = with_key.type("--stack", stack, "--delete", answers=[("Type the", "yes"), ("Type the", "")])
    assert status == 1 and f"Type {stack} to delete it" in screen and "Nothing was deleted." in screen
    assert status_of(stack) == "CREATE_COMPLETE"
    output, status = with_key.run("--stack", stack, "--delete")
    assert status == 1 and "--yes" in output and "Nothing was deleted." in output
    screen, status = with_key.type("--stack", stack, "--delete", answers=[("Type the", stack)])
    assert status == 0, screen
    assert status_of(stack) is None


def test_delete_keeps_the_bucket_that_another_stack_uses(with_key, world, stack, lines):
    for name in (stack, f"{stack}-eu"):
        output, status = with_key.deploy(name, **lines())
        assert status == 0, output
    output, status = with_key.run("--stack", stack, "--delete", "--yes")
    assert status == 0 and "stays, because it has other files" in output, output
    [bucket] = with_key.buckets()
    kept = world.client("s3").list_objects_v2(Bucket=bucket)["Contents"]
    assert {one["Key"].partition("/")[0] for one in kept} == {f"{stack}-eu"}


def test_delete_of_a_stack_that_is_not_there_says_so(installer, stack):
    output, status = installer.run("--stack", stack, "--delete", "--yes")
    assert status == 1 and f"There is no stack {stack} in us-east-1" in output and "Nothing was deleted." in output


def test_a_stack_of_something_else_is_neither_updated_nor_deleted(with_key, world, stack, lines, status_of):
    topic = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": stack}}}}
    world.client("cloudformation").create_stack(StackName=stack, TemplateBody=json.dumps(topic))
    output, status = with_key.deploy(stack, **lines())
    assert status == 1 and f"The stack {stack} is something else" in output and "Nothing was deployed." in output
    output, status = with_key.run("--stack", stack, "--delete", "--yes")
    assert status == 1 and f"The stack {stack} is something else" in output and "Nothing was deleted." in output
    assert status_of(stack) == "CREATE_COMPLETE"
    assert [one for one in world.client("sns").list_topics()["Topics"] if one["TopicArn"].endswith(f":{stack}")]


def test_delete_leaves_the_other_files_in_a_bucket_of_your_own(with_key, world, stack, lines):
    s3, bucket = world.client("s3"), f"own-{stack}"
    s3.create_bucket(Bucket=bucket)
    # Among them is what the Terraform module uploads.
    others = {f"{stack}/notes.txt", f"{stack}/{64 * 'a'}.zip", f"{stack}/0123456789abcdef/notes.txt"}
    for key in others:
        s3.put_object(Bucket=bucket, Key=key)
    output, status = with_key.deploy(stack, **lines(CodeBucket=bucket))
    assert status == 0, output
    output, status = with_key.run("--stack", stack, "--delete", "--yes")
    assert status == 0 and "2 uploaded files" in output, output
    kept = {one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]}
    for key in kept:
        s3.delete_object(Bucket=bucket, Key=key)
    s3.delete_bucket(Bucket=bucket)
    assert kept == others


def test_a_name_cannot_control_the_terminal(installer, world, answers):
    world.new_ai_secret(name="Bed\x1b]0;owned\x07\x9b2Jrock\n6. Deploy? [Y/n]: \u202e")
    screen, status = installer.type(answers=answers(**{"6": "n"}))
    assert status == 1 and "rock" in screen, screen
    assert not set(screen) & set("\x1b\x07\x9b\u202e") and screen.count("\n6. Deploy?") == 1, screen


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_leaves_no_file_with_the_key(with_key, world, stack, lines, tmp_path, name):
    # A process inherits an ignored signal, such as SIGHUP of `nohup make test`.
    signal.signal(getattr(signal, name), signal.SIG_DFL)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with_key.variables["TMPDIR"] = str(temporary)
    world.aws.fail("cloudformation:CreateChangeSet", Delay(30), times=None)

    def has_key():
        # The installer also makes other requests, and removes each file after its request.
        with contextlib.suppress(FileNotFoundError):
            return any(world.api_key in file.read_text() for file in temporary.rglob("request.json"))
        return False

    # A process inherits an ignored signal, such as SIGHUP of `nohup make test`, and deploy.py then keeps ignoring it.
    inherited = signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        process = with_key.start(stack, **lines())
    finally:
        signal.signal(getattr(signal, name), inherited)
    try:
        while not has_key():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(getattr(signal, name))
        output, _ = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 1 and "Interrupted. Nothing was deployed" in output
    assert list(temporary.iterdir()) == []


def test_a_damaged_bundle_deploys_nothing(with_key, stack, lines, status_of, bundle, tmp_path):
    copy = tmp_path / "damaged"
    copy.mkdir()
    for file in bundle.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    with (copy / "cloudformation.json").open("a") as template:
        template.write("\n")
    with_key.bundle = copy
    output, status = with_key.deploy(stack, **lines())
    assert status == 1 and "cloudformation.json is damaged" in output
    sums = copy / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if "cloudformation" not in line))
    output, status = with_key.deploy(stack, **lines())
    assert status == 1 and "cloudformation.json is damaged" in output
    (copy / "cloudformation.json").unlink()
    output, status = with_key.deploy(stack, **lines())
    assert status == 1 and "make release" in output
    assert status_of(stack) is None
