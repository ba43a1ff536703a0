"""The properties of the template's resources that ministack's CloudFormation leaves out when it creates them.

This runs in ministack's own Python environment.
"""

from ministack.services import iam, lambda_svc, sns
from ministack.services.cloudformation import provisioners


def install():
    for resource_type, complete in _COMPLETED.items():
        handlers = provisioners._RESOURCE_HANDLERS[resource_type]
        provisioners._RESOURCE_HANDLERS[resource_type] = handlers | {"create": _completing(handlers["create"], complete)}


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


def _topic(arn, properties):
    if key := properties.get("KmsMasterKeyId"):
        sns._topics[arn]["attributes"]["KmsMasterKeyId"] = key


def _function(name, properties):
    function = lambda_svc._functions[name]
    function["config"]["KMSKeyArn"] = properties.get("KmsKeyArn", "")
    function["code_signing_config_arn"] = properties.get("CodeSigningConfigArn", "")


_COMPLETED = {"AWS::IAM::Role": _role, "AWS::SNS::Topic": _topic, "AWS::Lambda::Function": _function}
