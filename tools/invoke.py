"""`make invoke EVENT=FILE`: sends an event to the built function under Lambda's runtime interface emulator.

The function works against a fresh local AWS and Braintrust, as in the tests, with one target named "default".
"""

import json
import sys
from pathlib import Path

from step import GREEN, RED, ROOT, Progress, exit_on_signals, paint

sys.path.insert(0, str(ROOT / "tests"))
from local.function import Function  # noqa: E402
from local.stack import Stack  # noqa: E402

MINISTACK = ROOT / ".tools/ministack/bin/ministack"
BOOTSTRAP = ROOT / ".aws-sam/build/RotatorFunction/bootstrap"


def main():
    if len(sys.argv) != 2:
        sys.exit("Usage: make invoke EVENT=events/rotate.json")
    try:
        event = json.loads(Path(sys.argv[1]).read_text())
    except (OSError, ValueError) as error:
        sys.exit(f"{sys.argv[1]} is no event: {error}")
    exit_on_signals()
    start = Progress("start the local AWS and Braintrust")
    start.say()
    with Stack(MINISTACK) as stack:
        start.end("ok", GREEN)
        ai_secret = stack.braintrust.add_ai_secret("AWS Bedrock", metadata={"region": "us-east-1"})
        target = {"name": "default", "kind": "temporary", "role_arn": stack.role(), "region": "us-east-1"}
        environment = stack.environment([target | {"ai_secrets": [{"id": ai_secret}]}])
        with Function(BOOTSTRAP, environment) as function:
            result = function.invoke(event)
    print(json.dumps(result.body, indent=2, ensure_ascii=False))
    if not result.ok:
        sys.exit(paint("The function failed.", RED))


main()
