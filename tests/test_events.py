"""Each file of events/, sent under Lambda's emulator, and by `sam local invoke` where Docker is available."""

import json
import os
import shutil
import subprocess
import time

import pytest
from support.container import IMAGE, Container, docker, engine_answers
from support.emulated_function import ARCHITECTURE, EmulatedFunction
from support.example_cloud import ExampleCloud
from support.paths import BOOTSTRAP, MINISTACK, ROOT

TEMPLATE = ROOT / ".aws-sam/build/template.yaml"
EVENTS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "events").glob("*.json"))}
# The outcomes, in the order of the targets, and the targets whose ai_secret has working credentials afterwards.
EXPECTED = {
    "check": (None, []),
    "create_secret": (["step_done"], []),
    "finish_secret": (["step_done"], ["prod"]),
    "inventory": (None, []),
    "revoke": (["revoked"], ["prod"]),
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
    with ExampleCloud(MINISTACK) as example:
        yield example


def check_effect(example, name, result):
    outcomes, working = EXPECTED[name]
    assert result.ok, (name, result.body)
    if name == "inventory":
        written_by = {target for provider in result.body["providers"] for target in provider["targets"]}
        assert written_by == {"default", "prod"}
    elif outcomes is None:
        assert [target["name"] for target in result.body["targets"]] == ["default", "prod"]
    else:
        assert [target["outcome"] for target in result.body["targets"]] == outcomes, name
    for target in working:
        assert example.works(target), name


@pytest.mark.parametrize("name", EVENTS)
def test_each_example_of_an_event_does_what_it_shows(example, name):
    with EmulatedFunction(BOOTSTRAP, example.environment) as function:
        check_effect(example, name, function.invoke(example.prepare(EVENTS[name], function.invoke)))


@pytest.fixture
def engine(tmp_path_factory):
    """The running Docker engine. If there is none, root starts one with Debian's docker.io and debootstrap."""
    if engine_answers():
        yield
        return
    if os.getuid() != 0 or not (shutil.which("dockerd") and shutil.which("debootstrap")):
        pytest.skip("no Docker engine answers, and none can be started here")
    directory = tmp_path_factory.mktemp("docker")
    # The containers need only the bridge. Without iptables, the machine's own rules stay as they are.
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
    """Makes an image of Debian in place of Lambda's, which is in a registry. The function needs only its glibc."""
    subprocess.run(
        ["debootstrap", "--variant=minbase", "bookworm", str(directory / "base")], check=True, stdout=subprocess.DEVNULL
    )
    with subprocess.Popen(["tar", "-C", str(directory / "base"), "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(["docker", "import", "-", IMAGE], stdin=tar.stdout, check=True, stdout=subprocess.DEVNULL)
    assert docker("tag", IMAGE, f"{IMAGE}-{ARCHITECTURE}") is not None


def test_each_example_does_the_same_by_sam_local_invoke(engine, tmp_path):
    """One test for all events, because it takes a minute to start an engine and make its image."""
    for name, event in EVENTS.items():
        with (
            ExampleCloud(MINISTACK) as example,
            EmulatedFunction(BOOTSTRAP, example.environment) as function,
            Container(TEMPLATE, example.environment, example.ports) as container,
        ):
            check_effect(example, name, container.invoke(example.prepare(event, function.invoke)))
