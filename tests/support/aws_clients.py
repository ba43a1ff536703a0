"""Clients of the local AWS with the permissions that a test gives them, and the errors of their refused calls."""

import json

import boto3
from botocore.client import Config
from botocore.exceptions import ClientError

from .local_cloud import REGION, LocalCloud


class refused:
    """A context in which a call must be refused. `code`, `message` and `status` are those of the error."""

    def __enter__(self):
        return self

    def __exit__(self, type, error, traceback):
        assert isinstance(error, ClientError), "nothing was refused"
        self.code, self.message = error.response["Error"]["Code"], error.response["Error"]["Message"]
        self.status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return True


def client_of(cloud: LocalCloud, service: str, credentials):
    return boto3.session.Session(*credentials, region_name=REGION).client(
        service, endpoint_url=cloud.aws.url, config=Config(retries={"total_max_attempts": 1})
    )


def session_of(cloud: LocalCloud, *statements):
    """The credentials of a session of a new role with these statements."""
    role = cloud.new_role(trust="*", allow=())
    policy = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    cloud.client("iam").put_role_policy(RoleName=role.rpartition("/")[2], PolicyName="p", PolicyDocument=policy)
    made = cloud.client("sts").assume_role(RoleArn=role, RoleSessionName="test", DurationSeconds=900)["Credentials"]
    return made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"]


def allow(*actions, resource="*", **conditions) -> dict:
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": resource}
    return statement | ({"Condition": conditions} if conditions else {})


def new_access_key(cloud: LocalCloud, user: str):
    made = cloud.client("iam").create_access_key(UserName=user)["AccessKey"]
    return made["AccessKeyId"], made["SecretAccessKey"], None


def new_long_term_key(cloud: LocalCloud, user: str, **age) -> dict:
    made = cloud.client("iam").create_service_specific_credential(
        UserName=user, ServiceName="bedrock.amazonaws.com", **age
    )
    return made["ServiceSpecificCredential"]
