"""Stands in for AWS's Terraform provider, with the resources that terraform/ uses, on the local AWS.

It has the provider's own names of arguments and attributes, and the AWS calls behind them. The settings of the bucket are
only stored: the local AWS has no TLS, which the bucket's policy requires.
This runs in the Python environment of .tools/terraform, as a program that Terraform starts.
"""

import os
import time

import boto3
from tf import provider, types
from tf.iface import DataSource, Provider, Resource
from tf.runner import run_provider
from tf.schema import Attribute, Block, NestedBlock, NestMode, Schema
from tf.utils import read_dynamic_value, to_dynamic_value

TEXT, FLAG, NUMBER = types.String(), types.Bool(), types.Number()
TEXTS, TEXT_MAP = types.Set(TEXT), types.Map(TEXT)
# What the resource being created or updated has in the configuration, by its type. Only there are write-only values,
# and the library doesn't pass it on.
CONFIGURATIONS = {}


def required(*names):
    return [Attribute(name, TEXT, required=True) for name in names]


def optional(type, *names):
    return [Attribute(name, type, optional=True) for name in names]


def computed(type, *names):
    return [Attribute(name, type, computed=True) for name in names]


def either(type, *names):
    """Arguments that AWS fills in if the configuration leaves them out."""
    return [Attribute(name, type, optional=True, computed=True) for name in names]


class UnchangedBlock(NestedBlock):
    """The library's own class loses blocks in blocks. Their values need no conversion."""

    def encode(self, value):
        return value

    def decode(self, value):
        return value

    def semantically_equal(self, one, other):
        return one == other


def block(name, *attributes, blocks=()):
    return UnchangedBlock(name, NestMode.Set, Block(list(attributes), list(blocks)))


class WriteOnly(Attribute):
    def to_pb(self):
        described = super().to_pb()
        # The library's protocol is older than this field, number 11: write_only = true.
        described.MergeFromString(b"\x58\x01")
        return described


def client(service):
    return boto3.client(service, endpoint_url=os.environ["AWS_ENDPOINT_URL"])


def domain(bucket):
    # The local CloudFormation reads templates only from such URLs.
    return f"s3.{os.environ['AWS_DEFAULT_REGION']}.amazonaws.com/{bucket}"


class Servicer(provider.ProviderServicer):
    """The library's, with write-only arguments: their values are in no plan and no state."""

    def PlanResourceChange(self, request, context):
        answer = super().PlanResourceChange(request, context)
        planned = read_dynamic_value(answer.planned_state)
        if "secret_string_wo" in (planned or {}):
            answer.planned_state.CopyFrom(to_dynamic_value(planned | {"secret_string_wo": None}))
        return answer

    def ApplyResourceChange(self, request, context):
        CONFIGURATIONS[request.type_name] = read_dynamic_value(request.config)
        return super().ApplyResourceChange(request, context)


class Stored(Resource):
    """A resource that is nothing but its state."""

    name, schema = "", Schema()

    def __init__(self, provider):
        pass

    @classmethod
    def get_name(cls):
        return cls.name

    @classmethod
    def get_schema(cls):
        return cls.schema

    def create(self, context, planned):
        return planned | {"id": planned["bucket"]}

    def read(self, context, current):
        return current

    def update(self, context, current, planned):
        return current | planned

    def delete(self, context, current):
        pass


class Bucket(Stored):
    name = "s3_bucket"
    schema = Schema(
        computed(TEXT, "id", "arn", "bucket_regional_domain_name")
        + either(TEXT, "bucket", "bucket_prefix")
        + optional(FLAG, "force_destroy")
        + optional(TEXT_MAP, "tags")
    )

    def create(self, context, planned):
        name = f"{planned['bucket_prefix']}{time.time_ns()}"
        client("s3").create_bucket(Bucket=name)
        found = {"id": name, "bucket": name, "arn": f"arn:aws:s3:::{name}"}
        return planned | found | {"bucket_regional_domain_name": domain(name)}

    def delete(self, context, current):
        s3, name = client("s3"), current["id"]
        for one in s3.list_objects_v2(Bucket=name).get("Contents", []):
            s3.delete_object(Bucket=name, Key=one["Key"])
        s3.delete_bucket(Bucket=name)


class ExistingBucket(DataSource):
    def __init__(self, provider):
        pass

    @classmethod
    def get_name(cls):
        return "s3_bucket"

    @classmethod
    def get_schema(cls):
        return Schema(required("bucket") + computed(TEXT, "id", "arn", "bucket_regional_domain_name"))

    def read(self, context, config):
        client("s3").head_bucket(Bucket=config["bucket"])
        found = {"id": config["bucket"], "arn": f"arn:aws:s3:::{config['bucket']}"}
        return config | found | {"bucket_regional_domain_name": domain(config["bucket"])}


class PublicAccess(Stored):
    name = "s3_bucket_public_access_block"
    schema = Schema(
        computed(TEXT, "id")
        + required("bucket")
        + optional(FLAG, "block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets")
    )


class Versioning(Stored):
    name = "s3_bucket_versioning"
    schema = Schema(
        computed(TEXT, "id") + required("bucket"), block_types=[block("versioning_configuration", *required("status"))]
    )


class Encryption(Stored):
    name = "s3_bucket_server_side_encryption_configuration"
    schema = Schema(
        computed(TEXT, "id") + required("bucket"),
        block_types=[
            block("rule", blocks=[block("apply_server_side_encryption_by_default", *required("sse_algorithm"))])
        ],
    )


class Policy(Stored):
    name = "s3_bucket_policy"
    schema = Schema(computed(TEXT, "id") + required("bucket", "policy"))


class Object(Stored):
    name = "s3_object"
    schema = Schema(
        computed(TEXT, "id", "etag")
        + required("bucket", "key")
        + optional(TEXT, "source")
        + either(TEXT, "content_type")
        + optional(TEXT_MAP, "tags")
    )

    def create(self, context, planned):
        with open(planned["source"], "rb") as file:
            etag = client("s3").put_object(Bucket=planned["bucket"], Key=planned["key"], Body=file)["ETag"]
        type = planned["content_type"] if isinstance(planned["content_type"], str) else "application/octet-stream"
        return planned | {"id": planned["key"], "etag": etag, "content_type": type}

    def delete(self, context, current):
        client("s3").delete_object(Bucket=current["bucket"], Key=current["key"])


class Secret(Stored):
    name = "secretsmanager_secret"
    schema = Schema(
        computed(TEXT, "id", "arn")
        + either(TEXT, "name", "name_prefix")
        + optional(TEXT, "description", "kms_key_id")
        + optional(TEXT_MAP, "tags")
    )

    def create(self, context, planned):
        name = f"{planned['name_prefix']}{time.time_ns()}"
        arn = client("secretsmanager").create_secret(Name=name)["ARN"]
        return planned | {"id": arn, "arn": arn, "name": name}

    def delete(self, context, current):
        client("secretsmanager").delete_secret(SecretId=current["id"])


class SecretVersion(Stored):
    name = "secretsmanager_secret_version"
    schema = Schema(
        computed(TEXT, "id", "version_id")
        + required("secret_id")
        + [WriteOnly("secret_string_wo", TEXT, optional=True, sensitive=True)]
        + optional(NUMBER, "secret_string_wo_version")
    )

    def create(self, context, planned):
        value = CONFIGURATIONS["aws_secretsmanager_secret_version"]["secret_string_wo"]
        version = client("secretsmanager").put_secret_value(SecretId=planned["secret_id"], SecretString=value)
        return planned | {"id": version["VersionId"], "version_id": version["VersionId"]}


class Stack(Stored):
    name = "cloudformation_stack"
    schema = Schema(
        computed(TEXT, "id")
        + required("name")
        + optional(TEXT, "template_url", "iam_role_arn")
        + either(TEXT, "template_body")
        + optional(TEXTS, "capabilities")
        + either(TEXT_MAP, "parameters")
        + optional(TEXT_MAP, "tags")
        + computed(TEXT_MAP, "outputs")
    )

    def create(self, context, planned):
        return self._deployed(planned, "create_stack", "stack_create_complete")

    def update(self, context, current, planned):
        return self._deployed(current | planned, "update_stack", "stack_update_complete")

    def plan(self, context, current, planned):
        return planned | ({"outputs": types.Unknown} if current and context.changed_fields else {})

    def _deployed(self, planned, call, waiter):
        cloudformation = client("cloudformation")
        parameters = [{"ParameterKey": name, "ParameterValue": value} for name, value in planned["parameters"].items()]
        id = getattr(cloudformation, call)(
            StackName=planned["name"],
            TemplateURL=planned["template_url"],
            Capabilities=planned["capabilities"],
            Parameters=parameters,
        )["StackId"]
        cloudformation.get_waiter(waiter).wait(StackName=id, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
        [stack] = cloudformation.describe_stacks(StackName=id)["Stacks"]
        outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
        return planned | {"id": id, "outputs": outputs, "template_body": "{}"}

    def delete(self, context, current):
        cloudformation = client("cloudformation")
        cloudformation.delete_stack(StackName=current["id"])
        cloudformation.get_waiter("stack_delete_complete").wait(
            StackName=current["id"], WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )


class Aws(Provider):
    def get_model_prefix(self):
        return "aws_"

    def get_provider_schema(self, diagnostics):
        return Schema(optional(TEXT, "region"), block_types=[block("assume_role", *optional(TEXT, "role_arn"))])

    def full_name(self):
        return "registry.terraform.io/hashicorp/aws"

    def validate_config(self, diagnostics, config):
        pass

    def configure_provider(self, diagnostics, config):
        pass

    def get_data_sources(self):
        return [ExistingBucket]

    def get_resources(self):
        return [
            Bucket, PublicAccess, Versioning, Encryption, Policy, Object, Secret, SecretVersion, Stack,
        ]  # fmt: skip


provider.ProviderServicer = Servicer
run_provider(Aws())
