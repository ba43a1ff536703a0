"""The rotation as Braintrust's help article describes it, as a Lambda in Python with boto3.

It has what makes such a function fast: clients made at its start, connections kept, the API key read once. It has
nothing of what makes a rotation safe: no probe of the new credentials, no look at what
Braintrust took, no report.
"""

import os

import boto3
import urllib3

sts = boto3.client("sts")
secrets = boto3.client("secretsmanager")
# botocore brings urllib3 along: `requests`, which the article has, would only add to the start.
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
