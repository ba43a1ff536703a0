"""The resources of a stack, and what uses what."""

from .svg import picture, rect, text
from .template import Template

WIDTH, COLUMNS, ROW, BOX_WIDTH, BOX_HEIGHT = 800, (16, 290, 564), 66, 220, 50
TOP = 44
FUNCTION = "RotatorFunction"
# The column and the row of each resource. The function is beside eight rows, and alarms follow one after another.
PLACES = {
    "RotationSchedule": (0, 1),
    "RotationPermission": (0, 2),
    "ApiKeyRotationPermission": (0, 3),
    "ExecutionRole": (0, 4),
    "ExecutionPolicy": (0, 5),
    "LogGroup": (0, 6),
    "BraintrustApiKeySecret": (2, 1),
    "StagedSecret": (2, 2),
    "BedrockBoundary": (2, 3),
    "BedrockRole": (2, 4),
    "BedrockPolicy": (2, 5),
    "IamUser": (2, 6),
    "AsynchronousInvocations": (2, 7),
    "FailedRunsRule": (1, 8),
    "FailureQueue": (2, 8),
}
ROWS, FUNCTION_ROWS = 9, 8
# Policies that are named in the boxes of the resources to which they belong.
INSIDE = {"FailureQueuePolicy": "FailureQueue", "AlarmTopicPolicy": "AlarmTopic"}
BELOW_ALARMS = {"AlarmTopic": 0, "AlarmSubscription": 1, "Dashboard": 2}
# The start and the end of each arrow, and what the first resource does with the second.
ARROWS = [
    ("RotationSchedule", FUNCTION, "rotates"),
    ("RotationPermission", FUNCTION, "allows"),
    ("ApiKeyRotationPermission", FUNCTION, "allows"),
    (FUNCTION, "ExecutionRole", "runs as"),
    ("ExecutionPolicy", "ExecutionRole", ""),
    (FUNCTION, "LogGroup", "logs"),
    (FUNCTION, "BraintrustApiKeySecret", "reads"),
    (FUNCTION, "StagedSecret", "writes"),
    (FUNCTION, "BedrockRole", "assumes"),
    ("BedrockBoundary", "BedrockRole", ""),
    ("BedrockPolicy", "BedrockRole", ""),
    ("BedrockPolicy", "IamUser", ""),
    (FUNCTION, "IamUser", "rotates"),
    (FUNCTION, "AsynchronousInvocations", "failures"),
    ("AsynchronousInvocations", "FailureQueue", ""),
    ("FailedRunsRule", "FailureQueue", "failures"),
    ("AlarmTopic", "AlarmSubscription", "emails"),
]


def draw(template: Template) -> dict[str, str]:
    map = Map(template)
    made = [name for name in template.resources if template.exists(name)]
    description = (
        "A schedule invokes the function. It reads the Braintrust API key from a secret, assumes the Bedrock role, and "
        "writes the new credentials to Braintrust. Alarms watch its metrics and its failure queue, and notify a topic. "
        f"With default parameters, the stack has {', '.join(made)}."
    )
    title = "The resources of a stack"
    return {"resources.svg": picture(title, description, WIDTH, map.bottom, map.parts())}


class Map:
    def __init__(self, template: Template):
        self.template = template
        self.alarms = template.of_type("AWS::CloudWatch::Alarm")
        self.alarms_top = TOP + ROWS * ROW + 10
        below = self.alarms_top + 26 + (len(self.alarms) + 2) // 3 * (BOX_HEIGHT + 8) + 26
        self.bottom = below + BOX_HEIGHT + 40
        self.boxes = {name: (COLUMNS[column], TOP + row * ROW) for name, (column, row) in PLACES.items()}
        self.boxes |= {name: (COLUMNS[column], below) for name, column in BELOW_ALARMS.items()}
        for number, name in enumerate(self.alarms):
            self.boxes[name] = (COLUMNS[number % 3], self.alarms_top + 26 + number // 3 * (BOX_HEIGHT + 8))
        self.boxes[FUNCTION] = (COLUMNS[1], TOP)

    def without_place(self) -> list[str]:
        return [name for name in self.template.resources if name not in self.boxes and name not in INSIDE]

    def parts(self) -> list[str]:
        if missing := self.without_place():
            raise SystemExit(f"Give {', '.join(missing)} a place in tools/pictures/resources.py, and arrows.")
        return [MARKER, *self._alarms(), *self._outside(), *self._resources(), *self._arrows(), *self._legend()]

    def _resources(self):
        for name in self.boxes:
            if name not in self.template.resources:
                continue
            exists, about = self.template.exists(name), self._about(name)
            lines = about if exists else [*about, _shortened(self.template.decided_by(name))]
            yield from self._box(name, name, lines, "made" if exists else "made dashed")

    def _about(self, name):
        """What is remarkable about the resource: its type, or what an alarm watches."""
        properties = self.template.properties(name)
        if name in self.alarms:
            return [properties["MetricName"]]
        type = self.template.resources[name]["Type"].removeprefix("AWS::").replace("::", " ")
        if name == FUNCTION:
            return [type, properties["Runtime"], f"{properties['MemorySize']} MB, at most {properties['Timeout']} s"]
        policies = [policy for policy, owner in INSIDE.items() if owner == name and policy in self.template.resources]
        return [type, *(f"with {policy}" for policy in policies)]

    def _outside(self):
        [(event, schedule)] = self.template.resources[FUNCTION]["Properties"]["Events"].items()
        expression = self.template.value(schedule["Properties"]["Schedule"])
        self.boxes["rule"], self.boxes["braintrust"] = (COLUMNS[0], TOP), (COLUMNS[2], TOP)
        yield from self._box("rule", FUNCTION + event, [f"Events Rule: {expression}"], "made")
        yield from self._box("braintrust", "Braintrust", ["ai_secret, outside AWS"], "outside")

    def _box(self, name, title, lines, kind):
        x, y = self.boxes[name]
        height = (FUNCTION_ROWS - 1) * ROW + BOX_HEIGHT if name == FUNCTION else BOX_HEIGHT
        yield rect(x, y, BOX_WIDTH, height, kind, corner=6)
        y += (height - 13 - 15 * len(lines)) / 2 + 11
        yield text(x + BOX_WIDTH / 2, y, title, "strong middle")
        for number, content in enumerate(lines, 1):
            yield text(x + BOX_WIDTH / 2, y + 15 * number, content, "small note middle")

    def _alarms(self):
        height = self.boxes["AlarmTopic"][1] - self.alarms_top - 26
        yield rect(10, self.alarms_top, WIDTH - 20, height, "panel", corner=8)
        yield text(20, self.alarms_top + 17, "CloudWatch alarms", "small note")

    def _arrows(self):
        yield from self._arrow("rule", FUNCTION, "invokes")
        yield from self._arrow(FUNCTION, "braintrust", "writes")
        for start, end, does in ARROWS:
            if {start, end} <= set(self.template.resources):
                yield from self._arrow(start, end, does)
        middle, topic = BOX_WIDTH / 2, self.boxes["AlarmTopic"][1]
        for name, watched in (("LogGroup", "metrics in its lines"), ("FailureQueue", "messages")):
            x, y = self.boxes[name][0] + middle, self.boxes[name][1] + BOX_HEIGHT
            yield _path(x, y, x, self.alarms_top)
            yield text(x + 8, y + 17, watched, "small note")
        yield _path(COLUMNS[0] + middle, topic - 26, COLUMNS[0] + middle, topic)
        yield text(COLUMNS[0] + middle + 8, topic - 9, "notify", "small note")

    def _arrow(self, start, end, does):
        (x1, y1), (x2, y2) = self.boxes[start], self.boxes[end]
        if x1 == x2:
            y1, y2 = (y1 + BOX_HEIGHT, y2) if y1 < y2 else (y1, y2 + BOX_HEIGHT)
            x1 = x2 = x1 + BOX_WIDTH / 2
        else:
            y1 = y2 = (y2 if start == FUNCTION else y1) + BOX_HEIGHT / 2
            x1, x2 = (x1 + BOX_WIDTH, x2) if x1 < x2 else (x1, x2 + BOX_WIDTH)
        yield _path(x1, y1, x2, y2)
        yield text((x1 + x2) / 2, y1 - 6, does, "small note middle")

    def _legend(self):
        y = self.bottom - 14
        yield rect(20, y - 10, 18, 12, "made", corner=3)
        yield text(44, y, "created with default parameters", "small note")
        yield rect(290, y - 10, 18, 12, "made dashed", corner=3)
        yield text(314, y, "created only with other values of the parameters in the box", "small note")


MARKER = (
    '<marker id="end" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    '<path d="M0 0L8 4L0 8z" class="note"/></marker>'
)


def _path(x1, y1, x2, y2):
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" class="axis" marker-end="url(#end)"/>'


def _shortened(names):
    return ", ".join(names) if len(names) < 3 else f"{names[0]}, {names[1]}, …"
