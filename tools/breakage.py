"""Breaks the local stack in ways in which a real one can break, and mends it again."""

import json
import sys
import urllib.request

import local_stack

NOBODY = {"Effect": "Deny", "Principal": "*", "Action": "sts:AssumeRole"}
# What somebody enters into Braintrust's form.
SOMEBODY_ELSES = {
    "secret": "somebodyElsesSecretAccessKey000000000000",
    "metadata": {"auth_type": "iam_credentials", "access_key": "AKIASOMEBODYELSES000"},
}
WHAT_BROKE = {
    "trust": "The trust policy of {who} now refuses everybody, so the next rotation fails.",
    "bedrock": "The policy for Bedrock is detached from {who}, so Bedrock refuses its credentials.",
    "ai_secret": "Braintrust's ai_secret now holds an access key that somebody else entered, so evaluations fail.",
    "assume_role": "Braintrust's ai_secret is now set to assume a role, so Braintrust does that itself, and nothing "
    "has to be rotated.",
}
# Nothing is wrong after that, so the doctor finds nothing.
MOVED = {"metadata": {"auth_type": "assume_role", "role_arn": "arn:aws:iam::000000000000:role/braintrust"}}
# By the run's outcome.
WHAT_A_RUN_DID = {
    "rotated": "A run of the function then made new credentials, {}, and wrote them into the ai_secret.",
    "resumed": "A run of the function then completed the rotation that had failed. Braintrust now holds {}.",
    "repaired": "A run of the function then found the ai_secret changed, and wrote {} into it.",
    "not_due": "A run of the function then found nothing left to do. Braintrust holds {}, which is current.",
    "left_to_secrets_manager": "Secrets Manager rotates this secret, so its next attempt resumes what is unfinished.",
}


def breakable(outputs):
    """What can break, which depends on the kind of credentials."""
    return ["trust", "bedrock", "ai_secret"] if "BedrockRoleArn" in outputs else ["bedrock", "ai_secret"]


def break_local_stack(function, what, page):
    """Breaks one thing, and remembers how it was. Returns True."""
    known = [*breakable(function.local["outputs"]), "assume_role"]
    if what == "trust" and what not in known:
        sys.exit(
            "WHAT=trust is for the kinds that assume a role. For this kind, WHAT must be {}.".format(" or ".join(known))
        )
    if what not in known:
        sys.exit("WHAT must be {}. For example: make break WHAT={}".format(" or ".join(known), known[0]))
    broken, who = function.local.get("broken", {}), _Principal(function)
    if what not in broken or what in ("ai_secret", "assume_role"):  # these two change the same fields
        broken[what] = _break(function.local, who, what)
        local_stack.remember(broken=broken)
    print(*page.paragraph(WHAT_BROKE[what].format(who=who.text)), "", sep="\n")
    if what == "assume_role":
        print("  make status  # shows it\n  make mend    # moves the ai_secret back")
    else:
        print("  make doctor  # finds that, and says how to fix it\n  make mend    # mends it")
    return True


def mend_local_stack(function, page):
    """Mends all that was broken. Returns whether that worked."""
    broken, who = function.local.get("broken", {}), _Principal(function)
    if not broken:
        print(
            "Nothing is broken. To break something: make break WHAT={}".format(breakable(function.local["outputs"])[0])
        )
        return True
    for what in ("trust", "bedrock"):
        if what in broken:
            print(*page.paragraph(who.give_back(what, broken[what])), sep="\n")
    if "assume_role" in broken:
        _write(function.local, _working_credentials(function))
    if not _rotate(function, page):
        return False
    local_stack.remember(broken={})
    print("\n  make doctor  # finds no more problems")
    return True


def _break(local, who, what):
    """Returns what was there, if it is needed to mend that."""
    if what in ("trust", "bedrock"):
        return who.take_away(what)
    _write(local, SOMEBODY_ELSES if what == "ai_secret" else MOVED)
    return None


def _working_credentials(function):
    """Those that are current, as somebody enters them who moves the ai_secret back: see docs/assume-role.md."""
    secret = function.local["outputs"]["StagedSecretArn"]
    value = json.loads(function.client("secretsmanager").get_secret_value(SecretId=secret)["SecretString"])
    if "api_key" in value:
        return {"secret": value["api_key"], "metadata": {"auth_type": "api_key"}}
    metadata = {"auth_type": "iam_credentials", "access_key": value["aws_access_key_id"]}
    if "aws_session_token" in value:
        metadata["session_token"] = value["aws_session_token"]
    return {"secret": value["aws_secret_access_key"], "metadata": metadata}


def _rotate(function, page):
    """The function repairs the ai_secret and resumes a rotation that failed meanwhile, as the next run would."""
    report, failed = function.invoke(action="rotate", force=False)
    if failed:
        print("The run that should repair what is left failed. To see why: make doctor")
        return False
    [target] = report["targets"]
    print(*page.paragraph(WHAT_A_RUN_DID[target["outcome"]].format(_credentials(target))), sep="\n")
    return True


def _credentials(target):
    """A short-term API key has no ID but that of the session which signed it."""
    is_signed = target["kind"] == "short_term_api_key"
    return "{}{}".format("a short-term API key of the session " if is_signed else "", target.get("credential_id"))


class _Principal:
    """The role or the IAM user whose credentials Braintrust uses."""

    def __init__(self, function):
        outputs, self.iam = function.local["outputs"], function.client("iam")
        self.is_role = "BedrockRoleArn" in outputs
        if self.is_role:
            self.text = f"the role {outputs['BedrockRoleArn']}"
            self.name = {"RoleName": outputs["BedrockRoleArn"].rpartition("/")[2]}
        else:
            self.name = {"UserName": outputs["IamUserName"]}
            self.text = f"the IAM user {outputs['IamUserName']}"

    def take_away(self, what):
        """Returns what was there."""
        if what == "trust":
            before = self.iam.get_role(**self.name)["Role"]["AssumeRolePolicyDocument"]
            self._trust({"Version": "2012-10-17", "Statement": [NOBODY]})
            return before
        policies = self.iam.list_attached_role_policies if self.is_role else self.iam.list_attached_user_policies
        detach = self.iam.detach_role_policy if self.is_role else self.iam.detach_user_policy
        [policy] = policies(**self.name)["AttachedPolicies"]
        detach(**self.name, PolicyArn=policy["PolicyArn"])
        return policy["PolicyArn"]

    def give_back(self, what, before):
        """Returns what to tell about it."""
        if what == "trust":
            self._trust(before)
            return f"The trust policy of {self.text} is as it was before."
        attach = self.iam.attach_role_policy if self.is_role else self.iam.attach_user_policy
        attach(**self.name, PolicyArn=before)
        return f"The policy for Bedrock is attached to {self.text} again."

    def _trust(self, document):
        self.iam.update_assume_role_policy(**self.name, PolicyDocument=json.dumps(document))


def _write(local, body):
    """PATCHes the ai_secret, or the provider of a project."""
    collection = "ai_secret"
    if local["project"]:
        collection = "env_var"
        body = {"name": "AWS Bedrock", "metadata": body["metadata"]} | (
            {"value": body["secret"]} if "secret" in body else {}
        )
    url = f"{local['braintrust_url']}/v1/{collection}/{local['ai_secret']}"
    request = urllib.request.Request(url, json.dumps(body).encode(), method="PATCH")
    request.add_header("Authorization", f"Bearer {local['braintrust_api_key']}")
    urllib.request.urlopen(request).close()
