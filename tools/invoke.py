"""`make invoke EVENT=FILE`: sends an event to the built function, against a fresh local AWS and Braintrust.

In a container, by `sam local invoke`, where a Docker engine answers; else under Lambda's runtime interface emulator.
"""

import json
import sys
from pathlib import Path

from step import GREEN, RED, ROOT, Progress, exit_on_signals, paint

sys.path.insert(0, str(ROOT / "tests"))
from support.container import Container, engine_answers  # noqa: E402
from support.example import Example  # noqa: E402
from support.function import Function  # noqa: E402

MINISTACK = ROOT / ".tools/ministack/bin/ministack"
BUILD = ROOT / ".aws-sam/build"


def send(example, event):
    """By sam local invoke or the emulator: what comes before the event is always the emulator's, which is faster."""
    with Function(BUILD / "RotatorFunction/bootstrap", example.environment) as function:
        event = example.prepare(event, function.invoke)
        if engine_answers():
            how = Progress("sam local invoke, in a container of the Docker engine")
            how.say()
            with Container(BUILD / "template.yaml", example.environment, example.ports) as container:
                result = container.invoke(event)
        else:
            how = Progress("Lambda's runtime interface emulator (no Docker engine answers)")
            result = function.invoke(event)
    how.end(*(("ok", GREEN) if result.ok else ("failed", RED)))
    return result


def main():
    if len(sys.argv) != 2:
        sys.exit("Usage: make invoke EVENT=events/rotate.json")
    try:
        event = json.loads(Path(sys.argv[1]).read_text())
    except (OSError, ValueError) as error:
        sys.exit(f"{sys.argv[1]} is no event: {error}")
    if not isinstance(event, dict):
        sys.exit(f"{sys.argv[1]} is no event: a JSON object is expected")
    exit_on_signals()
    start = Progress("start the local AWS and Braintrust")
    start.say()
    with Example(MINISTACK) as example:
        start.end("ok", GREEN)
        result = send(example, event)
    print(json.dumps(result.body, indent=2, ensure_ascii=False))
    if not result.ok:
        sys.exit(paint("The function failed.", RED))


main()
