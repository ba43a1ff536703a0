"""The fixtures of the black-box tests: the local AWS, one test's world, and deployed stacks."""

import contextlib
import os
import uuid
from collections import Counter

import pytest
from support.deployed_function import parameters_of, run_command
from support.deployment import deploy, deploy_directly
from support.installer import Installer
from support.local_cloud import LocalCloud
from support.paths import MINISTACK, TEMPLATE
from support.release_bundle import make_bundle
from support.tls import private_ca
from support.world import BEDROCK_ACTIONS, World

# `make test` passes these on. Without them, a `make` that a test starts prints what it prints in a terminal.
for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"):
    os.environ.pop(name, None)


def pytest_xdist_auto_num_workers(config):
    """Tests mostly wait, so there are more processes than cores. For a few tests, it takes too long to start them."""
    if config.option.markexpr == "fleet":
        return 0  # because pytest doesn't show the output of other processes
    return 2 if config.option.markexpr else 4 if config.option.keyword else 6


def pytest_collection_modifyitems(config, items):
    if config.option.markexpr != "fleet":
        items[:] = [item for item in items if item.get_closest_marker("fleet") is None]
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_terminal_summary(terminalreporter):
    """Prints how many cases the tests went through, for those that count them."""
    counted = Counter()
    for report in terminalreporter.stats.get("passed", []):
        counted.update(dict(report.user_properties))
    for name, cases in counted.items():
        terminalreporter.write_line(f"{name}: {cases} cases")


@pytest.fixture(scope="session")
def cloud():
    with LocalCloud(MINISTACK) as cloud:
        yield cloud


@pytest.fixture(scope="session")
def role(cloud):
    """A role that the function may assume and that may use Bedrock."""
    return cloud.new_role(allow=BEDROCK_ACTIONS)


@pytest.fixture
def world(cloud, role):
    cloud.aws.requests.clear()
    cloud.aws.violations.clear()
    world = World(cloud, role)
    yield world
    world.stop()
    assert world.violations() == []


@pytest.fixture
def private(world, tmp_path):
    """A Braintrust whose certificate was signed by a private CA, and that CA's PEM file."""
    tls, bundle = private_ca(tmp_path, "127.0.0.1")
    braintrust = world.new_braintrust(tls)
    braintrust.add_key(world.api_key)
    return braintrust, bundle


@pytest.fixture
def unchanged(world):
    """Fails the test if an ai_secret changes after the test has called this."""
    taken = {}
    yield lambda: taken.update(before=world.braintrust.snapshot())
    assert world.braintrust.snapshot() == taken["before"]


@pytest.fixture
def deployed(world):
    """Deploys the template for an ai_secret, and returns the stack's outputs."""

    def deployed(ai_secret, by_sam=False, **parameters):
        name, parameters = f"rotator-{uuid.uuid4().hex[:8]}", parameters_of(world, ai_secret, parameters)
        if by_sam:
            return deploy(world.cloud, TEMPLATE, name, parameters, run_command)
        return deploy_directly(world.cloud, TEMPLATE, name, parameters)

    yield deployed
    # Otherwise their calls would be recorded in the tests that follow.
    events = world.client("events")
    for rule in events.list_rules()["Rules"]:
        events.disable_rule(Name=rule["Name"])


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """A release bundle with the function that the tests run."""
    return make_bundle(tmp_path_factory.mktemp("release") / "bundle")


@pytest.fixture
def installer(world, bundle, tmp_path):
    """deploy.py for a world whose stacks and buckets are deleted after the test."""
    yield Installer(world, bundle, tmp_path)
    cloudformation, s3 = world.client("cloudformation"), world.client("s3")
    for stack in cloudformation.describe_stacks()["Stacks"]:
        _delete_keys_of_users(world, stack["StackId"])
        cloudformation.delete_stack(StackName=stack["StackId"])
    for bucket in s3.list_buckets()["Buckets"]:
        versions = s3.list_object_versions(Bucket=bucket["Name"])
        for one in versions.get("Versions", []) + versions.get("DeleteMarkers", []):
            s3.delete_object(Bucket=bucket["Name"], Key=one["Key"], VersionId=one["VersionId"])
        s3.delete_bucket(Bucket=bucket["Name"])


def _delete_keys_of_users(world, stack):
    """CloudFormation can't delete a user that has keys."""
    iam = world.client("iam")
    for resource in world.client("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]:
        if resource["ResourceType"] != "AWS::IAM::User" or "PhysicalResourceId" not in resource:
            continue
        user = resource["PhysicalResourceId"]
        with contextlib.suppress(iam.exceptions.NoSuchEntityException):
            for key in iam.list_access_keys(UserName=user)["AccessKeyMetadata"]:
                iam.delete_access_key(UserName=user, AccessKeyId=key["AccessKeyId"])
            for key in iam.list_service_specific_credentials(UserName=user)["ServiceSpecificCredentials"]:
                iam.delete_service_specific_credential(
                    UserName=user, ServiceSpecificCredentialId=key["ServiceSpecificCredentialId"]
                )
