"""Several targets in one deployed function."""

import json
import time
import uuid

import pytest
from support.deployed_alarms import AGE, ALWAYS, EXPIRY, NO_SCHEDULED_RUN, NO_SUCCESS, alarms_of, settings
from support.deployed_function import SCHEDULED_EVENT, execution_policy, set_execution_policy, variables_of
from support.deployment import invoke
from support.targets_object import TargetsObject


def without_target(**parameters):
    return {"AiSecretId": None, **parameters}


def test_several_targets_are_rotated_with_no_more_permissions_than_they_need(world, deployed):
    first, second = world.new_ai_secret(), world.new_ai_secret()
    roles = [world.cloud.new_role(trust="*") for _ in range(3)]
    targets = [
        world.target(first, name="us", role_arn=roles[0]),
        world.target(second, name="eu", role_arn=roles[1], region="eu-central-1"),
    ]
    outputs = deployed(None, **without_target(Targets=json.dumps(targets), RoleArns=",".join(roles[:2])))
    assert json.loads(variables_of(world, outputs)["TARGETS"]) == targets
    report, failed = invoke(world.cloud, outputs["FunctionName"], SCHEDULED_EVENT)
    assert not failed, report
    outcomes = [(target["name"], target["outcome"]) for target in report["targets"]]
    assert outcomes == [("us", "rotated"), ("eu", "rotated")]
    assert world.has_working_credentials(first) and world.has_working_credentials(second)
    policy = execution_policy(world, outputs)
    assert set(policy) == {"AssumeTheBedrockRole", "ReadTheBraintrustApiKey", "WriteItsOwnLogs", "KeepWhatFailed"}
    assert policy["AssumeTheBedrockRole"]["Resource"] == roles[:2]
    found = {name: settings(alarm) for name, alarm in alarms_of(world, outputs).items()}
    assert found == ALWAYS | {"ExpiryAlarm": EXPIRY, "NoSuccessAlarm": NO_SUCCESS}
    assert not {"BedrockRoleArn", "IamUserName", "StagedSecretArn"} & set(outputs)


def test_targets_may_tag_their_sessions_if_a_parameter_allows_it(world, deployed):
    ai_secret, actions = world.new_ai_secret(), ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"]
    statement = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": actions}
    role = world.cloud.new_role(trust={"Version": "2012-10-17", "Statement": [statement]})
    target = world.target(ai_secret, role_arn=role, session_tags={"team": "ml"})
    given = {"Targets": json.dumps([target]), "RoleArns": role, "AllowSessionTags": "true"}
    outputs = deployed(None, **without_target(**given))
    assert execution_policy(world, outputs)["AssumeTheBedrockRole"]["Action"] == actions
    report, failed = invoke(world.cloud, outputs["FunctionName"], SCHEDULED_EVENT)
    assert not failed, report
    assert world.has_working_credentials(ai_secret)


def test_users_of_another_account_have_the_alarms_of_user_based_credentials(world, deployed):
    target = world.new_staged_target("access_key", world.new_ai_secret(), role_arn=world.cloud.new_role(trust="*"))
    given = {"RoleArns": target["role_arn"], "StagedSecretArns": target["secret_id"]}
    outputs = deployed(None, **without_target(Targets=json.dumps([target]), **given))
    found = {name: settings(alarm) for name, alarm in alarms_of(world, outputs).items()}
    assert found == ALWAYS | {"ExpiryAlarm": EXPIRY, "NoRunAlarm": NO_SCHEDULED_RUN, "AgeAlarm": AGE}


def test_targets_may_be_in_a_secret_that_the_function_needs_permission_to_read(world, deployed):
    ids, role = [world.new_ai_secret(f"secret {n}") for n in range(30)], world.cloud.new_role(trust="*")
    targets = [world.target(id, name=f"target-{n}", role_arn=role) for n, id in enumerate(ids)]
    secret = world.cloud.new_secret(targets)
    key = world.client("kms").create_key()["KeyMetadata"]["Arn"]
    outputs = deployed(None, **without_target(TargetsSecretArn=secret, RoleArns=role, KmsKeyArn=key))
    assert "TARGETS" not in variables_of(world, outputs)
    whole = execution_policy(world, outputs)
    assert whole["ReadTheTargets"]["Resource"] == secret
    encrypted = whole["UseTheKeyOfTheSecrets"]["Condition"]["StringLike"]["kms:EncryptionContext:SecretARN"]
    assert encrypted == [outputs["BraintrustApiKeySecretArn"], secret]
    set_execution_policy(world, outputs, {name: s for name, s in whole.items() if name != "ReadTheTargets"})
    refused, failed = invoke(world.cloud, outputs["FunctionName"], SCHEDULED_EVENT)
    assert failed and f'GetSecretValue: answered AccessDeniedException for the secret "{secret}"' in str(refused), (
        refused
    )
    set_execution_policy(world, outputs, whole)
    report, failed = invoke(world.cloud, outputs["FunctionName"], SCHEDULED_EVENT)
    assert not failed, report
    assert [target["outcome"] for target in report["targets"]] == ["rotated"] * 30


def test_300_targets_may_be_in_s3_and_their_roles_and_secrets_are_allowed_by_patterns(world, deployed):
    fleet = f"fleet-{uuid.uuid4().hex[:8]}"
    roles = [world.cloud.new_role(f"{fleet}-{n}", trust="*", external_id=f"tenant-{n}") for n in range(30)]
    api_key = world.cloud.new_secret(world.api_key, name=f"{fleet}/api-key")
    secrets_manager = world.client("secretsmanager")
    secret = secrets_manager.create_secret(Name=f"{fleet}/staged")["ARN"]
    ids = [world.new_ai_secret_of_any_name() for _ in range(300)]
    entries = [{"id": id, "api_key_secret_id": api_key} for id in ids]
    targets = [
        world.target(entry, name=f"target-{n}", role_arn=roles[n % 30], external_id=f"tenant-{n % 30}")
        for n, entry in enumerate(entries)
    ]
    targets[0]["secret_id"] = secret
    listed = TargetsObject(world, key="fleet/targets.json")
    listed.put(targets)
    of_secrets = f"arn:aws:secretsmanager:us-east-1:000000000000:secret:{fleet}/*"
    given = {"TargetsBucket": listed.bucket, "TargetsKey": listed.key, "RoleArns": f"arn:aws:iam::*:role/{fleet}-*"}
    key = world.client("kms").create_key()["KeyMetadata"]["Arn"]
    given |= {"StagedSecretArns": of_secrets, "ApiKeySecretArns": of_secrets, "TargetsKmsKeyArn": key, "KmsKeyArn": key}
    outputs = deployed(None, **without_target(**given), MemorySize="256")
    function = world.client("lambda").get_function_configuration(FunctionName=outputs["FunctionName"])
    assert function["MemorySize"] == 256
    variables = variables_of(world, outputs)
    assert (variables["TARGETS_S3_URI"], "TARGETS" in variables) == (listed.uri, False)
    whole = execution_policy(world, outputs)
    assert whole["ReadTheTargetsInTheBucket"]["Resource"] == f"arn:aws:s3:::{listed.bucket}/{listed.key}"
    account = whole["ReadTheTargetsInTheBucket"]["Condition"]["StringEquals"]["aws:ResourceAccount"]
    assert account == "000000000000"
    of_kms = whole["UseTheKeyOfTheTargets"]
    assert (of_kms["Action"], of_kms["Resource"]) == ("kms:Decrypt", key)
    assert of_kms["Condition"]["StringEquals"]["kms:ViaService"].startswith("s3.us-east-1.")
    encrypted = whole["UseTheKeyOfTheSecrets"]["Condition"]["StringLike"]["kms:EncryptionContext:SecretARN"]
    assert of_secrets in encrypted
    # The first refusal comes from the cold start, and the others come from a warm function.
    for statement in ("ReadTheTargetsInTheBucket", "StageTheCredentials", "AssumeTheBedrockRole"):
        set_execution_policy(world, outputs, {name: s for name, s in whole.items() if name != statement})
        refused, failed = invoke(world.cloud, outputs["FunctionName"], '{"action":"rotate","targets":["target-0"]}')
        assert failed and "AccessDenied" in str(refused), (statement, refused)
    set_execution_policy(world, outputs, whole)
    report, failed = invoke(world.cloud, outputs["FunctionName"], SCHEDULED_EVENT)
    assert not failed, [target for target in report["targets"] if target["outcome"] != "rotated"][:3]
    assert [target["outcome"] for target in report["targets"]] == ["rotated"] * 300
    assert all(world.has_working_credentials(id) for id in ids[::30])


def test_a_pattern_allows_no_other_role_and_no_other_secret(world, deployed):
    fleet = f"fleet-{uuid.uuid4().hex[:8]}"
    inside, outside = (world.cloud.new_role(f"{name}-{uuid.uuid4().hex[:8]}", trust="*") for name in (fleet, "other"))
    secret = world.new_staged_secret()
    targets = [
        world.target(world.new_ai_secret_of_any_name(), name="inside", role_arn=inside),
        world.target(world.new_ai_secret_of_any_name(), name="role", role_arn=outside),
        world.target(world.new_ai_secret_of_any_name(), name="secret", role_arn=inside, secret_id=secret),
    ]
    of_secrets = f"arn:aws:secretsmanager:us-east-1:000000000000:secret:{fleet}/*"
    given = {"RoleArns": f"arn:aws:iam::*:role/{fleet}-*", "StagedSecretArns": of_secrets}
    outputs = deployed(None, **without_target(Targets=json.dumps(targets), **given))
    report, failed = invoke(world.cloud, outputs["FunctionName"], SCHEDULED_EVENT)
    outcomes = {target["name"]: target["outcome"] for target in report["targets"]}
    assert failed and outcomes == {"inside": "rotated", "role": "failed", "secret": "failed"}
    assert [target["error"]["class"] for target in report["targets"][1:]] == ["permission", "permission"]


@pytest.mark.long
def test_two_schedules_rotate_the_targets_that_each_names(world, deployed):
    """One schedule is the stack's own, and one is created with the commands of docs/several-targets.md."""
    ids, role = [world.new_ai_secret() for _ in range(3)], world.cloud.new_role(trust="*")
    targets = [world.target(id, name=name, role_arn=role) for id, name in zip(ids, ["a", "b", "neither"], strict=True)]
    outputs = deployed(
        None,
        **without_target(Targets=json.dumps(targets), RoleArns=role, ReservedConcurrency="2"),
        ScheduleExpression="rate(1 minute)",
        ScheduleTargets="a",
    )
    events, rule = world.client("events"), f"second-{uuid.uuid4().hex[:8]}"
    arn = events.put_rule(Name=rule, ScheduleExpression="rate(1 minute)")["RuleArn"]
    world.client("lambda").add_permission(
        FunctionName=outputs["FunctionName"], StatementId="second", Action="lambda:InvokeFunction",
        Principal="events.amazonaws.com", SourceArn=arn,
    )  # fmt: skip
    event = '{"action":"rotate","targets":["b"]}'
    events.put_targets(Rule=rule, Targets=[{"Id": "function", "Arn": outputs["FunctionArn"], "Input": event}])
    until = time.monotonic() + 150
    while not all(world.has_working_credentials(id) for id in ids[:2]):
        assert time.monotonic() < until, "a schedule has not rotated its target"
        time.sleep(1)
    assert not world.has_working_credentials(ids[2])
    reports = [json.loads(line) for line in logged(world, outputs) if '"trigger"' in line]
    assert {tuple(target["name"] for target in report["targets"]) for report in reports} == {("a",), ("b",)}


def logged(world, outputs):
    """The lines that the function has logged."""
    events = world.client("logs").filter_log_events(logGroupName=outputs["LogGroupName"])["events"]
    return [line for event in events for line in event["message"].splitlines()]


def test_targets_may_be_of_every_kind_and_have_an_api_key_of_their_own(world, deployed):
    secrets, users = [world.new_ai_secret() for _ in range(3)], [world.new_user() for _ in range(2)]
    staged = [world.new_staged_secret() for _ in range(3)]
    role, other_key = world.cloud.new_role(trust="*"), world.cloud.new_secret(world.api_key)
    access_key = {"role_arn": None, "kind": "access_key"}
    api_key = {"role_arn": None, "kind": "long_term_api_key"}
    entry = {"id": secrets[0], "api_key_secret_id": other_key}
    targets = [
        world.target(entry, name="a", role_arn=role, secret_id=staged[0]),
        world.target(secrets[1], name="b", user_name=users[0], secret_id=staged[1], **access_key),
        world.target(secrets[2], name="c", user_name=users[1], secret_id=staged[2], **api_key),
    ]
    iam = world.client("iam")
    arns = [iam.get_user(UserName=user)["User"]["Arn"] for user in users]
    key = world.client("kms").create_key()["KeyMetadata"]["Arn"]
    outputs = deployed(
        None,
        **without_target(
            Targets=json.dumps(targets),
            RoleArns=role,
            IamUserArns=",".join(arns),
            StagedSecretArns=",".join(staged),
            ApiKeySecretArns=other_key,
            KmsKeyArn=key,
        ),
    )
    report, failed = invoke(world.cloud, outputs["FunctionName"], SCHEDULED_EVENT)
    assert not failed, report
    assert [target["outcome"] for target in report["targets"]] == ["rotated"] * 3
    assert all(world.has_working_credentials(secret) for secret in secrets)
    policy = execution_policy(world, outputs)
    for name in ("RotateAccessKeys", "CreateApiKeysThatExpire", "RetireApiKeys"):
        assert policy[name]["Resource"] == arns
    assert policy["StageTheCredentials"]["Resource"] == staged
    assert policy["ReadTheTargetsApiKeys"]["Resource"] == [other_key]
    encrypted = policy["UseTheKeyOfTheSecrets"]["Condition"]["StringLike"]["kms:EncryptionContext:SecretARN"]
    assert encrypted == [outputs["BraintrustApiKeySecretArn"], other_key, *staged]
    # With user-based targets, a scheduled run may find that nothing is due.
    assert {"NoRunAlarm", "ExpiryAlarm", "AgeAlarm"} <= set(alarms_of(world, outputs))
    assert "NoSuccessAlarm" not in alarms_of(world, outputs)
