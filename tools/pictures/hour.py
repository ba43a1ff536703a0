"""The timeline of one hour: the credentials, the scheduled runs, and when each alarm goes off if the runs fail."""

import re

from support.alarm_evaluation import Point, first_time_on

from .svg import cross, dot, line, picture, rect, text
from .template import Template

# Lambda retries a failed asynchronous invocation after one minute, and again two minutes later.
ATTEMPTS = (0, 1, 3)
HOSTED_CACHE_MINUTES = 1  # how long Braintrust's hosted gateway uses credentials that it has cached
AFTER_EXPIRY = 6  # the minutes that the picture shows after the credentials have expired
UNITS = {"minute": 1, "hour": 60, "day": 1_440}
WIDTH, LEFT, RIGHT, ROW = 800, 172, 24, 27


class Hour:
    """Credentials are created at minute 0, and the runs after that succeed or fail."""

    def __init__(self, template: Template):
        count, unit = re.fullmatch(r"rate\((\d+) (\w+?)s?\)", template.parameters["ScheduleExpression"]).groups()
        self.interval = int(count) * UNITS[unit]
        self.valid = int(template.parameters["DurationSeconds"]) // 60
        [retries] = template.find("MaximumRetryAttempts")
        self.attempts = ATTEMPTS[: retries + 1]
        self.end = self.valid + AFTER_EXPIRY
        self.runs = range(0, self.end, self.interval)
        self.failures = [run + delay for run in self.runs[1:] for delay in self.attempts if run + delay <= self.end]
        self.points = [*self._points(template.parameters["MetricsNamespace"])]
        self.alarms = {
            name: template.properties(name)
            for name in template.of_type("AWS::CloudWatch::Alarm")
            if template.exists(name)
        }

    def goes_off(self) -> dict[str, int | None]:
        """The minute at which each alarm goes off if the runs fail, and None for those that stay off."""
        times = {name: first_time_on(alarm, self.points, 0, self.end * 60) for name, alarm in self.alarms.items()}
        minutes = {name: None if time is None else time // 60 for name, time in times.items()}
        return dict(sorted(minutes.items(), key=lambda alarm: (alarm[1] is None, alarm[1])))

    def _points(self, namespace):
        """The metrics of a day of runs that succeed until minute 0 and fail after that."""
        succeeded = range(-1_440 // self.interval * self.interval, 1, self.interval)
        for minute in (*succeeded, *self.failures):
            fails = minute > 0
            own = {
                "RotationSucceeded": 1 - fails,
                "RotationFailed": int(fails),
                "SecondsUntilExpiry": max(0, self.valid - minute) * 60 if fails else self.valid * 60,
            }
            yield Point("AWS/Lambda", "Errors", minute * 60, int(fails), minute * 60)
            yield from (Point(namespace, name, minute * 60, value, minute * 60) for name, value in own.items())
        for minute in range(self.failures[len(self.attempts) - 1], self.end):
            yield Point("AWS/SQS", "ApproximateNumberOfMessagesVisible", minute * 60, 1, minute * 60)


def draw(template: Template) -> dict[str, str]:
    hour = Hour(template)
    timeline = _Timeline(hour)
    timeline.axis()
    timeline.heading("Every run succeeds")
    timeline.runs(hour.runs, [])
    for number, run in enumerate(hour.runs, 1):
        timeline.credentials(f"credentials {number}", run, run + hour.interval)
    timeline.grid()
    timeline.legend()
    timeline.heading(f"Every run fails from minute {hour.interval} on, with its retries")
    timeline.runs(hour.runs[:1], hour.failures)
    timeline.credentials("credentials 1", 0, hour.end)
    for name, minute in hour.goes_off().items():
        timeline.alarm(name, minute)
    timeline.grid()
    title = f"One hour: credentials that are valid for {hour.valid} minutes, a run every {hour.interval} minutes"
    return {"hour.svg": timeline.picture(title)}


class _Timeline:
    def __init__(self, hour: Hour):
        self.hour, self.y, self.parts = hour, 44, []

    def x(self, minute):
        return LEFT + min(minute, self.hour.end) * (WIDTH - LEFT - RIGHT) / self.hour.end

    def row(self, label):
        self.y += ROW
        self.parts.append(text(LEFT - 12, self.y + 13, label, "end"))

    def heading(self, content):
        self.y += ROW + 6
        self.parts.append(text(20, self.y + 13, content, "strong"))
        self.top = self.y + ROW - 4

    def grid(self):
        """Lines at the scheduled runs, behind the rows since the last heading."""
        lines = [line(self.x(run), self.top, self.x(run), self.y + ROW, "grid") for run in self.hour.runs]
        self.parts = lines + self.parts

    def axis(self):
        self.parts.append(text(LEFT - 12, self.y + 13, "minute", "end note"))
        self.parts += [text(self.x(m), self.y + 13, str(m), "middle note") for m in range(0, self.hour.end + 1, 5)]

    def runs(self, succeeded, failed):
        self.row("runs and retries" if failed else "runs")
        self.parts += [dot(self.x(minute), self.y + 9, "good", 5) for minute in succeeded]
        self.parts += [cross(self.x(minute), self.y + 9) for minute in failed]

    def credentials(self, label, created, replaced):
        self.row(label)
        expires, cached = created + self.hour.valid, min(replaced + HOSTED_CACHE_MINUTES, self.hour.end)
        self.bar(created, min(replaced, expires), "bar")
        if replaced < expires:
            self.bar(replaced, cached, "warn")
            self.bar(cached, expires, "pale")
        elif expires < self.hour.end:
            self.bar(expires, self.hour.end, "bad")
            self.parts.append(text(self.x(expires) + 4, self.y + 13, "expired", "small on-bar"))

    def bar(self, start, end, kind):
        if start < end and start < self.hour.end:
            self.parts.append(rect(self.x(start), self.y, self.x(end) - self.x(start), 18, kind))

    def legend(self):
        self.y += ROW
        cache = f"in the hosted gateway's cache, up to {HOSTED_CACHE_MINUTES * 60} s"
        colors = ((LEFT, "bar", "in Braintrust"), (284, "warn", cache), (540, "pale", "still valid"))
        for x, kind, meaning in colors:
            self.parts += [rect(x, self.y + 4, 10, 10, kind), text(x + 16, self.y + 13, meaning, "small note")]
        self.parts += [dot(640, self.y + 9, "good", 5), text(650, self.y + 13, "run", "small note")]
        self.parts += [cross(692, self.y + 9), text(702, self.y + 13, "failed run", "small note")]

    def alarm(self, name, minute):
        self.row(name)
        if minute is None:
            self.parts.append(text(LEFT + 6, self.y + 13, "stays off", "small note"))
            return
        left = self.hour.valid - minute
        remaining = f"{left} min before expiry" if left > 0 else "the credentials have expired"
        self.bar(minute, self.hour.end, "bad")
        x, label = self.x(minute), f"minute {minute}: {remaining}"
        is_inside = 6.5 * len(label) < WIDTH - RIGHT - x
        x, kind = (x + 6, "small on-bar") if is_inside else (x - 6, "small end")
        self.parts.append(text(x, self.y + 13, label, kind))

    def picture(self, title):
        bottom = self.y + ROW
        note = "The times of the alarms include the minutes that metrics usually take to reach them."
        self.parts.append(text(LEFT, bottom + 14, note, "small note"))
        off = [f"{name} at minute {minute}" for name, minute in self.hour.goes_off().items() if minute is not None]
        description = (
            f"Runs that succeed replace the credentials every {self.hour.interval} minutes, before they expire. If all "
            f"runs and retries fail from minute {self.hour.interval} on, the credentials expire at minute "
            f"{self.hour.valid}, and these alarms go off: {', '.join(off)}."
        )
        return picture(title, description, WIDTH, bottom + 28, self.parts)
