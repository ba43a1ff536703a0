"""deploy.py --targets checks a list of targets, keeps it in S3, and replaces it without touching the stack."""

import json
import uuid

import pytest
from support.deployment import invoke
from support.http_messages import Reply


@pytest.fixture
def stack():
    return f"fleet-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def with_key(installer, world):
    installer.variables["BRAINTRUST_API_KEY"] = world.api_key
    return installer


@pytest.fixture
def fleet(world, stack):
    """Creates targets with a role that a pattern allows."""
    role = world.cloud.new_role(f"{stack}-bedrock", trust="*")

    def fleet(*names, **fields):
        ids = [world.new_ai_secret_of_any_name() for _ in names]
        return [world.target(id, name=name, role_arn=role, **fields) for name, id in zip(names, ids, strict=True)]

    return fleet


@pytest.fixture
def lines(world, stack):
    return {"BraintrustApiUrl": world.braintrust.url, "RoleArns": f"arn:aws:iam::*:role/{stack}-*"}


@pytest.fixture
def described(world):
    def described(stack):
        [found] = world.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
        outputs = {one["OutputKey"]: one["OutputValue"] for one in found["Outputs"]}
        values = {one["ParameterKey"]: one["ParameterValue"] for one in found["Parameters"]}
        return found | {"Outputs": outputs, "Values": values}

    return described


@pytest.fixture
def stored(with_key, world, stack):
    """The list in S3."""

    def stored():
        [bucket] = with_key.buckets()
        found = world.client("s3").get_object(Bucket=bucket, Key=f"{stack}/targets.json")
        return json.loads(found["Body"].read())

    return stored


def works(world, target):
    return world.has_working_credentials(target["ai_secrets"][0]["id"])


def test_a_list_is_deployed_and_then_replaced_without_touching_the_stack(
    with_key, world, stack, fleet, lines, described
):
    first, second, third = fleet("first", "second", "third")
    output, status = with_key.deploy(stack, [first, second], **lines)
    assert status == 0 and "2, from fleet.json" in output, output
    assert works(world, first) and works(world, second)
    before, s3, [bucket] = described(stack), world.client("s3"), with_key.buckets()
    assert (before["Values"]["TargetsBucket"], before["Values"]["TargetsKey"]) == (bucket, f"{stack}/targets.json")
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"

    del with_key.variables["BRAINTRUST_API_KEY"]
    rotated = len(world.patches())
    with_key.config(stack).unlink()
    output, status = with_key.run("--stack", stack, "--yes", *with_key.list_of([first, third]))
    assert status == 0 and "New or different: third\n" in output, output
    assert works(world, third)
    # The first target, which hasn't changed, isn't rotated again.
    assert len(world.patches()) == rotated + 1
    after = described(stack)
    assert (after.get("LastUpdatedTime"), after["Parameters"]) == (before.get("LastUpdatedTime"), before["Parameters"])
    versions = s3.list_object_versions(Bucket=bucket, Prefix=f"{stack}/targets.json")["Versions"]
    assert len(versions) == 2

    output, status = with_key.run("--stack", stack, "--delete", "--yes")
    assert status == 0 and f"s3://{bucket}/{stack}/targets.json, with its 2 versions" in output, output
    assert with_key.buckets() == []


def test_a_stack_is_updated_before_the_list_that_needs_it(with_key, world, stack, fleet, lines):
    [first, second] = fleet("first", "second")
    output, status = with_key.deploy(stack, [first], **lines)
    assert status == 0, output
    other = world.cloud.new_role(f"other-{stack}", trust="*")
    second["role_arn"] = other
    output, status = with_key.run("--stack", stack, *with_key.list_of([first, second]))
    assert status == 1 and f'"second" uses {other}, which RoleArns doesn\'t allow' in output, output
    assert not works(world, second)
    output, status = with_key.deploy(stack, [first, second], RoleArns=f"{lines['RoleArns']},{other}")
    assert status == 0 and works(world, second), output
    assert output.index("UPDATE_COMPLETE") < output.index("Uploading 2 targets")


def test_a_list_in_a_bucket_of_your_own_needs_versions_and_stays(with_key, world, stack, fleet, lines):
    s3, bucket, targets = world.client("s3"), f"own-{stack}", fleet("first")
    s3.create_bucket(Bucket=bucket)
    given = {**lines, "TargetsBucket": bucket, "TargetsKey": "fleet.json"}
    output, status = with_key.deploy(stack, targets, **given)
    assert status == 1 and "put-bucket-versioning" in output, output
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    output, status = with_key.deploy(stack, targets, **given)
    assert status == 0 and works(world, targets[0]), output
    output, status = with_key.run("--stack", stack, "--delete", "--yes")
    assert status == 0 and f"The list of targets s3://{bucket}/fleet.json stays." in output, output
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 1


def test_a_stack_of_one_target_changes_to_a_list(with_key, world, stack, fleet, lines, described):
    single = {"BraintrustApiUrl": world.braintrust.url, "AiSecretId": world.new_ai_secret()}
    output, status = with_key.deploy(stack, **single)
    assert status == 0, output
    targets = fleet("first")
    output, status = with_key.run("--stack", stack, *with_key.list_of(targets))
    assert status == 1 and "has no list of targets in S3 yet" in output and "Nothing was deployed." in output
    output, status = with_key.deploy(stack, targets, **lines, AiSecretId='""')
    assert status == 0 and works(world, targets[0]), output


def test_a_wrong_list_deploys_nothing(with_key, stack, fleet, lines):
    [target] = fleet("first")
    for wrong, message in [
        ([target, target], 'fleet.json: the name "first" is used 2 times'),
        ([{**target, "regoin": "us-east-1"}], 'fleet.json: target "first": regoin is unknown. Did you mean region?'),
        ([{**target, "session_tags": {"team": "ml"}}], "Write AllowSessionTags: true"),
    ]:
        output, status = with_key.deploy(stack, wrong, **lines)
        assert status == 1 and message in output and "Nothing was deployed." in output, output
    assert with_key.buckets() == []


def test_a_list_that_the_function_refuses_is_replaced_by_the_one_before_it(
    with_key, world, stack, fleet, lines, stored, described
):
    first, second = fleet("first", "second")
    output, status = with_key.deploy(stack, [first], **lines)
    assert status == 0, output
    refused = {**second, "session_policy": {"Version": "x" * 3_000}}
    # Once by a function that has the list before it, and once by one that has to start.
    restart = {**lines, "MemorySize": "256"}
    for run in (
        lambda targets: with_key.run("--stack", stack, *with_key.list_of(targets)),
        lambda targets: with_key.deploy(stack, targets, **restart),
    ):
        output, status = run([first, refused])
        assert status == 2 and "session_policy: it has 3014 characters" in output, output
        assert "has the earlier one again" in output and stored() == [first]
    report, failed = invoke(world.cloud, described(stack)["Outputs"]["FunctionName"], b'{"action":"rotate"}')
    assert not failed and [target["name"] for target in report["targets"]] == ["first"], report
    output, status = with_key.run("--stack", stack, *with_key.list_of([first, {**first, "name": "second"}]))
    assert status == 1 and "is used 2 times" in output and stored() == [first], output


def test_a_first_list_that_the_function_refuses_stays_until_it_is_corrected(with_key, world, stack, fleet, lines):
    [target] = fleet("first")
    output, status = with_key.deploy(stack, [{**target, "session_policy": {"Version": "x" * 3_000}}], **lines)
    assert status == 2 and "has no earlier one" in output, output
    command = f"python3 deploy.py --stack {stack} --region us-east-1 --targets fleet.json"
    assert command in output
    output, status = with_key.run(*command.split()[2:-2], *with_key.list_of([target]))
    assert status == 0 and works(world, target), output


def test_targets_are_removed_only_if_that_is_confirmed(with_key, world, stack, fleet, lines, stored):
    targets = fleet("first", "second", "third")
    output, status = with_key.deploy(stack, targets, **lines)
    assert status == 0, output
    replace = ("--stack", stack, *with_key.list_of(targets[:1]))
    for output, status in (with_key.run(*replace), with_key.deploy(stack, targets[:1], **lines)):
        assert status == 1 and "No longer in the list: second, third." in output and "--yes" in output, output
    screen, status = with_key.type(*replace, answers=[("Remove them?", "")])
    assert status == 1 and stored() == targets, screen
    screen, status = with_key.type(*replace, answers=[("Remove them?", "y")])
    assert status == 0 and stored() == targets[:1], screen
    output, status = with_key.deploy(stack, targets, **lines)
    assert status == 0 and stored() == targets, output
    with_key.list_of(targets[:1])
    output, status = with_key.run(*replace, "--yes")
    assert status == 0 and stored() == targets[:1], output


def test_a_list_is_not_replaced_if_what_it_replaces_cannot_be_read(with_key, world, stack, fleet, lines, stored):
    first, second = fleet("first", "second")
    with_key.deploy(stack, [first], **lines)
    denied = Reply(403, "<Error><Code>AccessDenied</Code></Error>", content_type="application/xml")
    world.aws.fail(lambda request: request.call.startswith("s3 GET") and "targets" in request.path, denied, times=None)
    output, status = with_key.run("--stack", stack, *with_key.list_of([second]))
    world.aws.clear_faults()
    assert status == 1 and "AccessDenied" in output and "Nothing was deployed." in output, output
    assert stored() == [first]


def test_a_list_from_a_pipe_is_uploaded_as_it_was_read(with_key, world, stack, fleet, lines, stored):
    targets = fleet("first")
    with_key.deploy(stack, targets, **lines)
    changed = [{**targets[0], "duration_seconds": 1_800}]
    output, status = with_key.run("--stack", stack, "--targets", "/dev/stdin", piped=json.dumps(changed))
    assert status == 0 and stored() == changed, output


def test_a_list_is_not_kept_in_a_bucket_of_your_own_that_was_named_for_the_function(
    with_key, world, stack, fleet, lines
):
    bucket = f"own-{stack}"
    world.client("s3").create_bucket(Bucket=bucket)
    output, status = with_key.deploy(stack, fleet("first"), **lines, CodeBucket=bucket)
    assert status == 1 and "TargetsBucket" in output and "Nothing was deployed." in output, output
    assert world.client("s3").list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_of_a_fleet_only_the_first_targets_are_rotated_by_a_deployment(with_key, world, stack, fleet, lines):
    targets = fleet(*(f"target-{n}" for n in range(11)))
    lines["ScheduleState"] = "DISABLED"
    output, status = with_key.deploy(stack, targets, **lines)
    assert status == 0, output
    assert [works(world, target) for target in targets] == [True] * 10 + [False]
    # The list in S3 has the names, too.
    output, status = with_key.deploy(stack, **lines)
    assert status == 0 and "target-9:" in output and "target-10" not in output, output
    assert not works(world, targets[10])
    changed = [{**target, "duration_seconds": 1_800} for target in targets]
    output, status = with_key.run("--stack", stack, *with_key.list_of(changed))
    assert status == 0 and not works(world, targets[10]), output
