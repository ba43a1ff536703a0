"""The pictures of the documents, and the code that draws them."""

import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from support.paths import ROOT

sys.path.append(str(ROOT / "tools"))
from pictures import hour, resources, svg, tour  # noqa: E402
from pictures.day import Day  # noqa: E402
from pictures.files import save  # noqa: E402
from pictures.hour import Hour  # noqa: E402
from pictures.resources import ARROWS, Map  # noqa: E402
from pictures.template import Template  # noqa: E402
from pictures.terminal_screen import Screen  # noqa: E402

PICTURES = [*sorted((ROOT / "docs/pictures").glob("*.svg")), *sorted((ROOT / "bench").glob("*.svg"))]
SVG = "{http://www.w3.org/2000/svg}"
LEGIBLE = 4.5  # the contrast that WCAG 2.2 demands of text
TEMPLATE = ROOT / "template.yaml"


@pytest.fixture(scope="module")
def template():
    return Template(TEMPLATE)


def named(path):
    return path.stem


@pytest.mark.parametrize("path", PICTURES, ids=named)
def test_a_picture_is_small_and_complete_and_says_what_it_shows(path):
    root = ElementTree.parse(path).getroot()
    assert path.stat().st_size < 60_000
    assert root.get("role") == "img" and root.get("aria-labelledby") == "title desc"
    assert len(root.find(f"{SVG}title").text) > 5 and len(root.find(f"{SVG}desc").text) > 40
    assert not {element.tag.removeprefix(SVG) for element in root.iter()} & {"image", "script", "foreignObject", "use"}
    outside = r"(?:href|src)=|@import|@font-face|url\((?!#)|https?://(?!www\.w3\.org/2000/svg)"
    assert re.findall(outside, path.read_text()) == []


@pytest.mark.parametrize("path", PICTURES, ids=named)
def test_everything_in_a_picture_has_a_color_on_light_and_on_dark_pages(path):
    root = ElementTree.parse(path).getroot()
    light, dark = root.find(f"{SVG}style").text.split("@media (prefers-color-scheme: dark)")
    used = {name for element in root.iter() for name in element.get("class", "").split()}
    for scheme in (light, dark):
        colored = set(re.findall(r"\.([\w-]+) \{ (?:fill|stroke): #", scheme))
        assert used - colored <= {"title", "end", "middle", "strong", "small", "code", "log", "dashed", "measured"}
    assert {"page"} <= used


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_words_are_legible_on_each_background(scheme):
    backgrounds = [svg.FILLS[name][scheme] for name in ("page", "panel")]
    words = [svg.TEXT[scheme], *(svg.FILLS[name][scheme] for name in ("note", "good", "bad", "warn", "bar"))]
    pairs = [(word, background) for word in words for background in backgrounds]
    pairs.append((svg.FILLS["on-bar"][scheme], svg.FILLS["bad"][scheme]))
    assert [pair for pair in pairs if contrast(*pair) < LEGIBLE] == []


def contrast(one, other):
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def luminance(color):
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("drawn_by", [hour, resources], ids=lambda module: module.__name__.rpartition(".")[2])
def test_the_pictures_of_the_template_show_the_template_as_it_is(drawn_by, template):
    for name, picture in drawn_by.draw(template).items():
        assert (ROOT / "docs/pictures" / name).read_text() == picture, "the template has changed: make pictures"


def test_the_hour_shows_the_times_of_the_template(template):
    picture = (ROOT / "docs/pictures/hour.svg").read_text()
    [runs] = re.findall(r"a run every (\d+) minutes</title>", picture)
    assert template.parameters["ScheduleExpression"] == f"rate({runs} minutes)"
    assert f"valid for {template.parameters['DurationSeconds'] // 60} minutes" in picture
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", picture)
    shown = {name: texts[texts.index(name) + 1] for name in template.of_type("AWS::CloudWatch::Alarm") if name in texts}
    assert shown.keys() == {name for name in template.of_type("AWS::CloudWatch::Alarm") if template.exists(name)}
    minutes = {name: int(re.match(r"minute (\d+): ", label)[1]) for name, label in shown.items() if label[-3:] != "off"}
    # After that, the metrics have to reach the alarm.
    assert 1 <= minutes["NoSuccessAlarm"] - template.parameters["AlarmAfterMinutes"] <= 6
    assert 2 <= minutes["ErrorsAlarm"] - int(runs) <= 5  # the minutes of the run and of its first retry have errors
    assert shown["ThrottlesAlarm"] == "stays off"


def test_the_hour_follows_other_values_of_the_parameters():
    parameters = {"ScheduleExpression": "rate(10 minutes)", "AlarmAfterMinutes": 15, "DurationSeconds": 1800}
    changed = Hour(Template(TEMPLATE, **parameters))
    assert changed.failures == [10, 11, 13, 20, 21, 23, 30, 31, 33]
    assert 12 <= changed.goes_off()["ErrorsAlarm"] <= 15 and 16 <= changed.goes_off()["NoSuccessAlarm"] <= 21


def test_the_failing_hour_has_the_metrics_that_the_function_writes_when_it_fails(template):
    day, model = Day(template), Hour(template)
    run = model.interval
    failing = [point for point in model.points if run * 60 <= point.at < 2 * run * 60 and point.namespace != "AWS/SQS"]
    assert {point.at // 60 - run for point in failing} == set(model.attempts)
    for point in failing:
        written = day.series[point.namespace, point.metric][day.fails_at + point.at // 60 - run]
        assert abs(written - point.value) <= 5, point
    assert len(day.errors) == len(model.attempts)
    runs = 24 * 60 // model.interval
    assert sum(day.series["BedrockBraintrustRotator", "RotationSucceeded"].values()) == runs - 1


def test_every_resource_has_a_place_in_the_picture(template):
    map = Map(template)
    assert map.without_place() == []
    places = list(map.boxes.values())
    assert len(places) == len(set(places))
    template.resources["NewTable"] = {"Type": "AWS::DynamoDB::Table"}
    try:
        with pytest.raises(SystemExit, match="Give NewTable a place in tools/pictures/resources.py"):
            resources.draw(template)
    finally:
        del template.resources["NewTable"]


def test_every_arrow_between_resources_is_a_reference_in_the_template(template):
    arrows = [(start, end) for start, end, _ in ARROWS if {start, end} <= set(template.resources)]
    assert len(arrows) > 10
    assert [a for a in arrows if a[1] not in template.mentions(a[0]) and a[0] not in template.mentions(a[1])] == []


@pytest.mark.parametrize(
    ("parameters", "made", "not_made"),
    [
        ({}, {"BedrockRole", "NoSuccessAlarm", "AlarmTopic"}, {"IamUser", "StagedSecret", "AgeAlarm"}),
        ({"Kind": "access_key"}, {"IamUser", "StagedSecret", "AgeAlarm"}, {"BedrockRole", "ExpiryAlarm"}),
        ({"AlarmTopicArn": "arn:aws:sns:us-east-1:123456789012:alarms"}, {"BedrockRole"}, {"AlarmTopic"}),
    ],
)
def test_conditions_decide_which_resources_exist(parameters, made, not_made):
    template = Template(TEMPLATE, **parameters)
    exist = {name for name in template.resources if template.exists(name)}
    assert made <= exist and not exist & not_made
    assert template.decided_by("IamUser") == ["Kind", "IamUserName"]


def text_of(screen):
    return ["".join(character for character, _ in row) for row in screen.rows]


def test_a_terminal_redraws_wraps_and_colors():
    screen = Screen(10)
    screen.feed("working\r\x1b[Kdone: \x1b[1;32mok\x1b[0m\r\n0123456789AB")
    assert text_of(screen) == ["done: ok", "0123456789", "AB"]
    assert [codes for _, codes in screen.rows[0]] == [""] * 6 + ["1;32"] * 2
    with pytest.raises(SystemExit, match=r"doesn't know ESC \[ 2A"):
        screen.feed("\x1b[2A")


def test_words_stay_in_their_columns_in_every_font():
    screen = Screen(80)
    screen.feed("  \x1b[31mfailed\x1b[0m   assume it")
    left, width = tour.LEFT, tour.CHARACTER
    element = re.compile(r'<text x="([\d.]+)" y="0.0" textLength="([\d.]+)" class="(.*)">(.*)</text>')
    drawn = [element.fullmatch(part).groups() for part in tour.words(screen.rows[0], 0)]
    failed = (f"{left + 2 * width:.1f}", f"{6 * width:.1f}", "code bad", "failed")
    assert drawn == [failed, (f"{left + 11 * width:.1f}", f"{9 * width:.1f}", "code", "assume it")]


def test_the_tour_leaves_out_the_details_of_checks_that_did_not_fail():
    heading, failure = "default\r\n", "  \x1b[31mfailed\x1b[0m   assume\r\n           why\r\n"
    check = "  \x1b[32mok\x1b[0m       read\r\n           arn:aws:secretsmanager\r\n"
    left = "  \x1b[32mok\x1b[0m       read …\r\n"
    assert tour.without_details(heading + check + failure) == heading + left + failure


def test_a_command_of_the_tour_that_fails_stops_it(monkeypatch):
    monkeypatch.setattr(tour, "TOUR", [("no-such-goal", True)])
    words = r"(?s)make no-such-goal had the exit status 2 in the tour.*There is no goal no-such-goal"
    with pytest.raises(SystemExit, match=words):
        tour.draw(None)


def test_a_picture_changes_only_if_more_than_times_and_ids_have_changed(tmp_path):
    path = tmp_path / "picture.svg"
    old = "rotated ASIA0000000000000001 in 5.0 s at 2026-01-01T00:00:00Z, expires in 60 min"
    save(path, old)
    save(path, "rotated ASIA0000000000000002 in 15.5 s at 2027-01-01T00:00:00Z, expires in 60 min")
    assert path.read_text() == old
    save(path, old.replace("rotated", "failed"))
    assert path.read_text().startswith("failed")


def test_an_unknown_picture_is_refused():
    command = [sys.executable, str(ROOT / "tools/draw.py"), "houor"]
    done = subprocess.run(command, capture_output=True, text=True)
    refusal = "There is no picture houor. The pictures are hour, resources, dashboard, tour.\n"
    assert (done.returncode, done.stderr) == (1, refusal)
