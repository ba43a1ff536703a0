"""Lets deploy.py install the function a second time, in the local AWS that `make run` left running.

    deploy_locally.py ARCH [OPTION OF DEPLOY.PY ...]

The bundle has the debug build that `make run` made, because a release build takes minutes longer.
"""

import os
import sys
from pathlib import Path

import environment
import local_stack
from bundle import write_bundle
from environment import ROOT

BUNDLE = ROOT / ".tools/bundle"
BOOTSTRAP = Path(os.environ.get("BOOTSTRAP", ROOT / "target/debug/bootstrap"))
STACK = ["--stack", "my-rotator"]  # `make run` has deployed a stack of the usual name


def variables(local):
    """The environment in which the AWS CLI works on the local AWS, and not on the caller's account."""
    credentials = local["credentials"]
    return {
        "PATH": os.pathsep.join([str(ROOT / ".tools/awscli/bin"), os.environ["PATH"]]),
        "AWS_ENDPOINT_URL": local["endpoint_url"],
        "AWS_ACCESS_KEY_ID": credentials["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": credentials["aws_secret_access_key"],
        "AWS_REGION": credentials["region_name"],
    }


def main():
    local = local_stack.load() or sys.exit("Nothing is running. Use `make run` first.")
    arch, *arguments = sys.argv[1:]
    environment.prepare()
    write_bundle(BUNDLE, {arch: BOOTSTRAP})
    if not arguments:
        print("Answer question 2 with", local["braintrust_url"])
        print("and question 3 with  ", local["braintrust_api_key"], flush=True)
        arguments = STACK
    os.environ.update(variables(local))
    os.chdir(ROOT)
    os.execv(sys.executable, [sys.executable, BUNDLE / "deploy.py", *arguments])


main()
