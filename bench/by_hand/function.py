"""The rotation that Braintrust's help article describes, as a Lambda function in Python with boto3.

It is written to be fast: it creates its clients when it starts, reuses connections, and reads the API key once. It
leaves out what makes a rotation safe: it does not probe the new credentials, does not check what Braintrust has stored,
and returns no report.
"""

import os

import boto3
import urllib3

sts = boto3.client("sts")
secrets = boto3.client("secretsmanager")
# urllib3 comes with botocore. The article uses `requests`, which would only add to the start.
http = urllib3.PoolManager(ca_certs=os.environ.get("BRAINTRUST_CA_BUNDLE"))
api_key = None


def braintrust(method, path, **body):
    global api_key
    if api_key is None:
        api_key = secrets.get_secret_value(SecretId=os.environ["BRAINTRUST_API_KEY_SECRET_ID"])["SecretString"]
    url = f"{os.environ['BRAINTRUST_API_URL']}/v1/ai_secret{path}"
    answer = http.request(method, url, headers={"Authorization": f"Bearer {api_key}"}, json=body or None)
    if answer.status != 200:
        raise RuntimeError(f"Braintrust answered {answer.status}")
    return answer.json()


def handler(event, context):
    name = os.environ["AI_SECRET_NAME"]
    [ai_secret] = braintrust("GET", f"?ai_secret_name={name}")["objects"]
    new = sts.assume_role(RoleArn=os.environ["ROLE_ARN"], RoleSessionName="by-hand")["Credentials"]
    metadata = {
        "aws_access_key_id": new["AccessKeyId"],
        "aws_secret_access_key": new["SecretAccessKey"],
        "aws_session_token": new["SessionToken"],
    }
    braintrust("PATCH", f"/{ai_secret['id']}", metadata=metadata)
    return {"expiration": new["Expiration"].isoformat()}
