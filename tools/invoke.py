"""Sends an event to the built function, which works on a new local AWS and Braintrust.

    invoke.py FILE

If a Docker engine is running, `sam local invoke` runs the function in a container. Otherwise Lambda's runtime interface
emulator runs it.
"""

import json
import sys
from pathlib import Path

import environment
from environment import ROOT
from step import exit_on_signals
from terminal import GREEN, RED, Progress, paint

sys.path.insert(0, str(ROOT / "tests"))
from support.container import Container, engine_answers  # noqa: E402
from support.example_cloud import ExampleCloud  # noqa: E402
from support.emulated_function import EmulatedFunction  # noqa: E402

MINISTACK = ROOT / ".tools/ministack/bin/ministack"
BUILD = ROOT / ".aws-sam/build"


def send(example, event):
    """Sends the event after those that must precede it. These go to the emulator, which is faster."""
    with EmulatedFunction(BUILD / "RotatorFunction/bootstrap", example.environment) as function:
        event = example.prepare(event, function.invoke)
        if engine_answers():
            how = Progress("sam local invoke, in a Docker container")
            how.say()
            with Container(BUILD / "template.yaml", example.environment, example.ports) as container:
                result = container.invoke(event)
        else:
            how = Progress("Lambda's runtime interface emulator (no Docker engine is running)")
            result = function.invoke(event)
    how.end(*(("ok", GREEN) if result.ok else ("failed", RED)))
    return result


def main():
    if len(sys.argv) != 2:
        sys.exit("Usage: make invoke EVENT=events/rotate.json")
    try:
        event = json.loads(Path(sys.argv[1]).read_text())
    except (OSError, ValueError) as error:
        sys.exit(f"{sys.argv[1]} is not an event: {error}")
    if not isinstance(event, dict):
        sys.exit(f"{sys.argv[1]} is not an event: it must contain a JSON object")
    environment.prepare()
    exit_on_signals()
    start = Progress("start the local AWS and Braintrust")
    start.say()
    with ExampleCloud(MINISTACK) as example:
        start.end("ok", GREEN)
        result = send(example, event)
    print(json.dumps(result.body, indent=2, ensure_ascii=False))
    if not result.ok:
        sys.exit(paint("The function failed.", RED))


main()
