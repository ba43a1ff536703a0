"""The template lets a deployed function end the sessions of the role that its stack made, and nothing else."""

import json

from botocore.exceptions import ClientError
import pytest
from support.deployed_function import FORCED_EVENT, execution_policy, rotate_deployed, set_execution_policy
from support.deployment import invoke

REVOKE = json.dumps({"action": "revoke", "targets": ["default"]})
STATEMENTS = {
    "EndTheSessionsOfTheBedrockRole": "PutRolePolicy",
    "ReadTheDateOfThatPolicy": "GetRolePolicy",
}


@pytest.mark.parametrize("kind", ["temporary", "short_term_api_key"])
def test_a_stack_that_allows_it_ends_the_sessions_of_its_role_and_needs_both_statements(world, deployed, kind):
    ai_secret = world.new_ai_secret()
    outputs = deployed(ai_secret, Kind=kind, AllowSessionRevocation="true")
    rotate_deployed(world, outputs)
    leaked = world.braintrust.credentials(ai_secret)
    whole = execution_policy(world, outputs)
    for statement, call in STATEMENTS.items():
        assert whole[statement]["Resource"] == outputs["BedrockRoleArn"]
        set_execution_policy(world, outputs, {name: it for name, it in whole.items() if name != statement})
        report, failed = invoke(world.cloud, outputs["FunctionName"], REVOKE)
        assert failed and report["targets"][0]["error"]["call"] == call
        assert world.works(leaked) and world.has_working_credentials(ai_secret)
    set_execution_policy(world, outputs, whole)
    report, failed = invoke(world.cloud, outputs["FunctionName"], REVOKE)
    assert not failed and report["targets"][0]["outcome"] == "revoked", report
    assert not world.works(leaked) and world.has_working_credentials(ai_secret)
    rotate_deployed(world, outputs, FORCED_EVENT)


def test_the_function_may_write_policies_only_on_a_role_with_the_boundary(world, deployed):
    outputs = deployed(world.new_ai_secret(), AllowSessionRevocation="true")
    iam, role = world.client("iam"), outputs["BedrockRoleArn"].rpartition("/")[2]
    boundary = iam.get_role(RoleName=role)["Role"]["PermissionsBoundary"]["PermissionsBoundaryArn"]
    allowed = execution_policy(world, outputs)["EndTheSessionsOfTheBedrockRole"]
    assert allowed["Condition"] == {"StringEquals": {"iam:PermissionsBoundary": boundary}}
    iam.delete_role_permissions_boundary(RoleName=role)
    report, failed = invoke(world.cloud, outputs["FunctionName"], REVOKE)
    assert failed and report["targets"][0]["error"]["call"] == "PutRolePolicy"
    with pytest.raises(ClientError):
        iam.get_role_policy(RoleName=role, PolicyName="AWSRevokeOlderSessions")


def test_a_stack_allows_it_only_if_it_is_asked_for(world, deployed):
    outputs = deployed(world.new_ai_secret())
    assert not STATEMENTS.keys() & execution_policy(world, outputs).keys()
