"""deploy.py --targets checks a list of targets, keeps it in S3, and replaces it without touching the stack."""

import uuid

import pytest


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
        return found | {"Values": {one["ParameterKey"]: one["ParameterValue"] for one in found["Parameters"]}}

    return described


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
    output, status = with_key.run("--stack", stack, *with_key.list_of([first, third]))
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
        ([target, target], 'fleet.json: 2 targets have the name "first"'),
        ([{**target, "regoin": "us-east-1"}], 'fleet.json: target "first": regoin is unknown. Did you mean region?'),
        ([{**target, "session_tags": {"team": "ml"}}], "Write AllowSessionTags: true"),
    ]:
        output, status = with_key.deploy(stack, wrong, **lines)
        assert status == 1 and message in output and "Nothing was deployed." in output, output
    assert with_key.buckets() == []
