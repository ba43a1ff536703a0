"""Each file of events/: under Lambda's emulator, and by `sam local invoke` in a container, where a Docker engine is to be had."""

import json
import os
import shutil
import subprocess
import time

import pytest
from conftest import BOOTSTRAP, MINISTACK, ROOT
from support.container import IMAGE, Container, docker, engine_answers
from support.example import Example
from support.function import ARCHITECTURE, Function

TEMPLATE = ROOT / ".aws-sam/build/template.yaml"
EVENTS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "events").glob("*.json"))}
# What each does: the outcomes, in the targets' order, and the targets whose ai_secret then holds working credentials.
EXPECTED = {
    "check": (None, []),
    "create_secret": (["step_done"], []),
    "finish_secret": (["step_done"], ["prod"]),
    "rollback": (["rolled_back"], ["prod"]),
    "rotate": (["rotated", "rotated"], ["default", "prod"]),
    "rotate_dry_run": (["would_rotate"], []),
    "schedule": (["rotated", "rotated"], ["default", "prod"]),
    "scheduler": (["rotated", "rotated"], ["default", "prod"]),
    "set_secret": (["step_done"], ["prod"]),
    "status": (None, []),
    "test_secret": (["step_done"], ["prod"]),
}


@pytest.fixture
def example():
    with Example(MINISTACK) as example:
        yield example


def did(example, name, result):
    outcomes, working = EXPECTED[name]
    assert result.ok, (name, result.body)
    if outcomes is None:
        assert [target["name"] for target in result.body["targets"]] == ["default", "prod"]
    else:
        assert [target["outcome"] for target in result.body["targets"]] == outcomes, name
    for target in working:
        assert example.works(target), name


@pytest.mark.parametrize("name", EVENTS)
def test_each_example_of_an_event_does_what_it_shows(example, name):
    with Function(BOOTSTRAP, example.environment) as function:
        did(example, name, function.invoke(example.prepare(EVENTS[name], function.invoke)))


@pytest.fixture
def engine(tmp_path_factory):
    """The Docker engine that answers, or one of the test's own, as root with Debian's docker.io and debootstrap."""
    if engine_answers():
        yield
        return
    if os.getuid() != 0 or not (shutil.which("dockerd") and shutil.which("debootstrap")):
        pytest.skip("no Docker engine answers, and none can be started here")
    directory = tmp_path_factory.mktemp("docker")
    # Without iptables: the containers need nothing but the bridge, and the machine's own rules stay as they are.
    options = ["--storage-driver=vfs", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]
    folders = [f"--data-root={directory}/data", f"--exec-root={directory}/exec", f"--pidfile={directory}/pid"]
    host = f"unix://{directory}/socket"
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen(["dockerd", *options, *folders, f"--host={host}"], stdout=log, stderr=log)
    before, os.environ["DOCKER_HOST"] = os.environ.get("DOCKER_HOST"), host
    try:
        deadline = time.monotonic() + 60
        while not engine_answers():
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"no Docker engine starts here: {(directory / 'log').read_text()[-500:]}")
            time.sleep(0.5)
        make_image(directory)
        yield
    finally:
        process.terminate()
        process.wait()
        os.environ.pop("DOCKER_HOST") if before is None else os.environ.update(DOCKER_HOST=before)
        shutil.rmtree(directory)


def make_image(directory):
    """Debian in the place of Lambda's own image, which a registry has: both give the function a glibc and no more."""
    subprocess.run(["debootstrap", "--variant=minbase", "bookworm", str(directory / "base")], check=True, stdout=subprocess.DEVNULL)
    with subprocess.Popen(["tar", "-C", str(directory / "base"), "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(["docker", "import", "-", IMAGE], stdin=tar.stdout, check=True, stdout=subprocess.DEVNULL)
    assert docker("tag", IMAGE, f"{IMAGE}-{ARCHITECTURE}") is not None


def test_each_example_does_the_same_by_sam_local_invoke(engine, tmp_path):
    """One test for all, because an engine and its image take a minute to make."""
    for name, event in EVENTS.items():
        with (
            Example(MINISTACK) as example,
            Function(BOOTSTRAP, example.environment) as function,
            Container(TEMPLATE, example.environment, example.ports) as container,
        ):
            did(example, name, container.invoke(example.prepare(event, function.invoke)))
