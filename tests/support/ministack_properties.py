"""What ministack's CloudFormation lacks of the templates' resources: some properties, and some types in docs/examples.

This runs in ministack's own Python environment.
"""

import json
import re

from ministack.services import eventbridge, iam, lambda_svc, secretsmanager, sns
from ministack.services.cloudformation import provisioners

_DYNAMIC_REFERENCE = re.compile(r"{{resolve:secretsmanager:([^:}]+):SecretString:([^:}]+)}}")


def install():
    provisioners._RESOURCE_HANDLERS.update(_ADDED)
    for resource_type, complete in _COMPLETED.items():
        handlers = provisioners._RESOURCE_HANDLERS[resource_type]
        provisioners._RESOURCE_HANDLERS[resource_type] = handlers | {"create": _completing(handlers["create"], complete)}
    roles = provisioners._RESOURCE_HANDLERS["AWS::IAM::Role"]
    roles["delete"] = _refusing_unknown_policies(roles["delete"])


def _completing(create, complete):
    def create_completely(logical_id, properties, stack_name):
        physical_id, attributes = create(logical_id, properties, stack_name)
        complete(physical_id, properties)
        return physical_id, attributes

    return create_completely


def _role(name, properties):
    if boundary := properties.get("PermissionsBoundary"):
        answer = iam._put_role_permissions_boundary({"RoleName": [name], "PermissionsBoundary": [boundary]})
        if answer[0] != 200:
            raise ValueError(f"the permissions boundary of the role {name}: {answer[2]!r}")


def _refusing_unknown_policies(delete):
    """As in AWS, a role can't be deleted while it has inline policies that the template doesn't have."""

    def delete_role(name, properties):
        inline = iam._roles.get(name, {}).get("InlinePolicies", {})
        if unknown := set(inline) - {policy["PolicyName"] for policy in properties.get("Policies", [])}:
            raise ValueError(f"Cannot delete entity, must delete policies first: {unknown}")
        return delete(name, properties)

    return delete_role


def _topic(arn, properties):
    if key := properties.get("KmsMasterKeyId"):
        sns._topics[arn]["attributes"]["KmsMasterKeyId"] = key


def _function(name, properties):
    function = lambda_svc._functions[name]
    function["config"]["KMSKeyArn"] = properties.get("KmsKeyArn", "")
    function["code_signing_config_arn"] = properties.get("CodeSigningConfigArn", "")


def _create_connection(logical_id, properties, stack_name):
    asked = {**properties, "Name": f"{stack_name}-{logical_id}"}
    asked["AuthParameters"] = json.loads(_DYNAMIC_REFERENCE.sub(_resolved, json.dumps(properties["AuthParameters"])))
    return asked["Name"], {"Arn": _created(eventbridge._create_connection(asked))["ConnectionArn"]}


def _resolved(reference):
    _, secret = secretsmanager._resolve(reference[1])
    current = next(version for version in secret["Versions"].values() if "AWSCURRENT" in version["Stages"])
    return json.dumps(json.loads(current["SecretString"])[reference[2]])[1:-1]


def _create_api_destination(logical_id, properties, stack_name):
    asked = {**properties, "Name": f"{stack_name}-{logical_id}"}
    return asked["Name"], {"Arn": _created(eventbridge._create_api_destination(asked))["ApiDestinationArn"]}


def _created(answer):
    if answer[0] != 200:
        raise ValueError(answer[2])
    return json.loads(answer[2])


def _create_slack_channel(_logical_id, properties, _stack_name):
    """Nothing: the tests subscribe to the topic in its place."""
    return properties["ConfigurationName"], {}


_ADDED = {
    "AWS::Events::Connection": {"create": _create_connection},
    "AWS::Events::ApiDestination": {"create": _create_api_destination},
    "AWS::Chatbot::SlackChannelConfiguration": {"create": _create_slack_channel},
}
_COMPLETED = {"AWS::IAM::Role": _role, "AWS::SNS::Topic": _topic, "AWS::Lambda::Function": _function}
