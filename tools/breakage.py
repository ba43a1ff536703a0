"""Breaks the local stack in a way in which a real one can break."""

import json
import sys
import urllib.request


def break_local_stack(function, what):
    local = function.local or sys.exit("Only the local stack can be broken.")
    role = local["outputs"].get("BedrockRoleArn", "").rpartition("/")[2]
    if what == "trust" and role:
        _refuse_everybody(function.client("iam"), role)
        print("The Bedrock role no longer trusts anybody. make doctor finds it, and make run starts again.")
    elif what == "bedrock" and role:
        iam = function.client("iam")
        [policy] = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
        iam.detach_role_policy(RoleName=role, PolicyArn=policy["PolicyArn"])
        print("The Bedrock role may no longer use Bedrock. make doctor finds it, and make run starts again.")
    elif what == "ai_secret":
        _overwrite(local)
        print("The ai_secret now holds credentials that somebody else wrote. The next scheduled run repairs that: make rotate.")
    else:
        sys.exit("WHAT must be trust or bedrock (for role-based kinds), or ai_secret (for all kinds).")


def _refuse_everybody(iam, role):
    statement = {"Effect": "Deny", "Principal": "*", "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.update_assume_role_policy(RoleName=role, PolicyDocument=document)


def _overwrite(local):
    change = json.dumps({"secret": "somebody else's", "metadata": {"access_key": "AKIASOMEBODYELSES000"}})
    url = f"{local['braintrust_url']}/v1/ai_secret/{local['ai_secret']}"
    request = urllib.request.Request(url, change.encode(), method="PATCH")
    request.add_header("Authorization", f"Bearer {local['braintrust_api_key']}")
    urllib.request.urlopen(request).close()
