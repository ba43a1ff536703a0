"""Deploys the template to a local AWS, rotates, and tells how that changed what Braintrust holds.

    run.py KIND TRIGGER PROJECT [end_to_end]

With the trigger `schedule`, the function is invoked for two scheduled runs, the second of which finds it warm. With
`rotation`, Secrets Manager invokes it for the four rotation steps. If PROJECT is not empty, the credentials go into the
own provider of a project with that name instead of the organization's ai_secret. With `end_to_end`, rotations are also
proven through Braintrust. The local stack runs for another hour, so that `make doctor` and the other commands can use
it.
"""

import signals

signals.exit_on_signals(signals.say_stopped)

import sys  # noqa: E402

import environment  # noqa: E402
import local_stack  # noqa: E402
from environment import ROOT  # noqa: E402
from terminal import GREEN, Progress  # noqa: E402

sys.path.insert(0, str(ROOT / "tests"))
import story  # noqa: E402
from local_rotation import MODEL  # noqa: E402
from support.deployment import deploy_directly  # noqa: E402
from support.local_cloud import LocalCloud  # noqa: E402
from support.paths import MINISTACK  # noqa: E402

AN_HOUR = 3600
STACK_NAME = "bedrock-braintrust-rotator"
TEMPLATE = ROOT / "template.yaml"
OLD = {"auth_type": "iam_credentials", "access_key": "ASIAOLDOLDOLDOLDOLD0", "region": "us-east-1"}
OLD |= {"session_token": "IQoJb3JpZ2luOfASessionThatExpiredLongAgo"}
OLD_SECRET = "0ldS3cretAccessKeyThatNoLongerWorks00000"


def rotate(stack, kind, trigger, project, end_to_end):
    ai_secret = stack.braintrust.add_ai_secret("AWS Bedrock", metadata=dict(OLD), secret=OLD_SECRET)
    parameters = {
        "BraintrustApiKey": stack.braintrust_api_key,
        "BraintrustApiUrl": stack.braintrust.url,
        "AiSecretId": ai_secret,
        "Kind": kind,
        "StageCredentials": "true",
        **({"EndToEndModelId": MODEL} if end_to_end else {}),
    }
    where = ""
    if project:
        ai_secret = stack.braintrust.add_project_provider(
            stack.braintrust.add_project(project), metadata=dict(OLD), secret=OLD_SECRET
        )
        parameters |= {"AiSecretId": "", "AiSecretName": "AWS Bedrock", "BraintrustProject": project}
        where = f' of the project "{project}"'
    progress = Progress("deploy the template")
    progress.say()
    outputs = deploy_directly(stack, TEMPLATE, STACK_NAME, parameters)
    progress.end("ok", GREEN)
    story.tell(stack, ai_secret, outputs, trigger, where)
    return {"outputs": outputs, "ai_secret": ai_secret, "project": project}


def work(done):
    kind, trigger, project, *end_to_end = sys.argv[1:]
    start = Progress("start the local AWS and Braintrust")
    start.say()
    with LocalCloud(MINISTACK) as stack:
        start.end("ok", GREEN)
        rotated = rotate(stack, kind, trigger, project, bool(end_to_end))
        root = stack.ministack.root
        local_stack.save(
            **rotated,
            stack_name=STACK_NAME,
            endpoint_url=stack.aws.url,
            credentials={
                "aws_access_key_id": root["AWS_ACCESS_KEY_ID"],
                "aws_secret_access_key": root["AWS_SECRET_ACCESS_KEY"],
                "region_name": "us-east-1",
            },
            braintrust_url=stack.braintrust.url,
            braintrust_api_key=stack.braintrust_api_key,
        )
        done()
        local_stack.stay(AN_HOUR)


def main():
    environment.prepare()
    start = local_stack.Start()
    local_stack.stop_running()
    local_stack.in_background(start, work)


main()
