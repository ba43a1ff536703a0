"""What deploy.py does if a list in S3 can't be compared, uploaded, or proven, with an AWS that is played."""

import hashlib
import importlib.util
import json
from pathlib import Path

import pytest

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/braintrust-bedrock"
FIRST, SECOND, THIRD = (
    {"name": name, "kind": "temporary", "role_arn": ROLE, "region": "us-east-1", "ai_secrets": [{"name": name}]}
    for name in ("first", "second", "third")
)
PARAMETERS = {
    "BraintrustApiUrl": "https://braintrust.example",
    "BraintrustApiKeySecretArn": f"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:api-key-AbCdEf",
    "RoleArns": ROLE,
    "TargetsBucket": "own",
    "TargetsKey": "fleet.json",
}
OUTPUTS = {"FunctionName": "function", "DashboardName": "dashboard", "AlarmTopicArn": "topic"}
NO_CHANGES = {"Status": "FAILED", "StatusReason": "The submitted information didn't contain changes."}


@pytest.fixture(scope="module")
def deploy(bundle):
    spec = importlib.util.spec_from_file_location("deploy", bundle / "deploy.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text_of(*targets):
    return json.dumps(targets).encode()


class Cloud:
    """A deployed stack and the list that its function uses. A fault is raised before its operation, or called."""

    def __init__(self, deploy):
        self.deploy, self.list, self.faults = deploy, text_of(FIRST), {}
        self.rotation = {"targets": [{"name": "second", "outcome": "rotated"}]}
        self.answers = {
            "get-caller-identity": {"Account": ACCOUNT, "Arn": f"arn:aws:iam::{ACCOUNT}:user/me"},
            "describe-stacks": {"Stacks": [self._stack()]},
            "get-bucket-versioning": {"Status": "Enabled"},
            "create-change-set": {"StackId": "stack"},
            "describe-change-set": NO_CHANGES,
        }

    def _stack(self):
        parameters = [{"ParameterKey": key, "ParameterValue": value} for key, value in PARAMETERS.items()]
        outputs = [{"OutputKey": key, "OutputValue": value} for key, value in OUTPUTS.items()]
        described = {"StackName": "fleet", "StackId": "stack", "StackStatus": "UPDATE_COMPLETE"}
        return {**described, "Parameters": parameters, "Outputs": outputs}

    def call(self, operation, options):
        fault = self.faults.get(operation)
        if isinstance(fault, BaseException):
            raise fault
        if fault:
            fault()
        if operation in ("get-object", "head-object"):
            return self._get(operation, options)
        if operation == "put-object" and f"--key={PARAMETERS['TargetsKey']}" in options:
            self.list = Path(options[options.index("--body") + 1]).read_bytes()
            return {"ETag": self._etag()}
        if operation == "invoke":
            return self._invoke(options)
        return self.answers.get(operation, {})

    def _get(self, operation, options):
        if self.list is None:
            raise self.deploy.AwsError("404", "Not Found")
        if operation == "get-object":
            Path(options[-1]).write_bytes(self.list)
        return {"ETag": self._etag(), "VersionId": "v1"}

    def _etag(self):
        return f'"{hashlib.md5(self.list, usedforsecurity=False).hexdigest()}"'

    def _invoke(self, options):
        event = json.loads(Path(options[3].removeprefix("fileb://")).read_text())
        answer = self.rotation if event["action"] == "rotate" else {"ok": True, "targets": []}
        Path(options[-1]).write_text(json.dumps(answer))
        return {"FunctionError": "Unhandled"} if "errorMessage" in answer else {}

    def fail_with(self, operation, code):
        self.faults[operation] = self.deploy.AwsError(code, "the reason")

    def replace(self, text):
        self.list = text


@pytest.fixture
def cloud(deploy, monkeypatch):
    cloud = Cloud(deploy)

    class Aws(deploy.Aws):
        def __init__(self, folder, profile=None):
            self.folder = Path(folder)

        def call(self, service, operation, request=None, options=(), variables=None):
            return cloud.call(operation, options)

    monkeypatch.setattr(deploy, "Aws", Aws)
    monkeypatch.setattr(deploy.time, "sleep", lambda _: None)
    return cloud


@pytest.fixture(params=["replaces the list", "deploys the stack"])
def run(deploy, cloud, tmp_path, monkeypatch, capsys, request):
    """Replaces the list of the stack `fleet`. Returns the exit status and what was shown."""
    monkeypatch.chdir(tmp_path)
    Path("fleet.yaml").write_text("Region: us-east-1\n")

    def run(*targets, options=()):
        Path("list.json").write_bytes(text_of(*targets))
        config = ["--config", "fleet.yaml"] if request.param == "deploys the stack" else []
        arguments = ["--stack", "fleet", "--region", "us-east-1", "--targets", "list.json", *config]
        status = deploy.main([*arguments, *options])
        shown = capsys.readouterr()
        return status, shown.out + shown.err

    run.deploys = request.param == "deploys the stack"
    return run


@pytest.mark.parametrize(
    "before", [b"", b"[", b"\xff", b"null", b"{}", b'["first"]', b'[{"name": ["x"]}]', b"[" * 100_000], ids=range(8)
)
def test_a_list_that_cannot_be_compared_is_replaced_only_if_that_is_confirmed(cloud, run, before):
    cloud.list = before
    status, shown = run(SECOND)
    assert status == 1 and cloud.list == before, shown
    assert "s3://own/fleet.json can't be read" in shown and "--yes" in shown
    status, shown = run(SECOND, options=["--yes"])
    assert status == 0 and cloud.list == text_of(SECOND), shown


def test_an_empty_place_needs_no_confirmation(cloud, run):
    cloud.list = None
    status, shown = run(SECOND)
    assert status == 0 and cloud.list == text_of(SECOND), shown


@pytest.mark.parametrize("theirs", [text_of(FIRST, THIRD), None], ids=["changed", "deleted"])
def test_what_has_changed_since_it_was_compared_is_not_replaced(cloud, run, theirs):
    cloud.faults["get-bucket-versioning"] = lambda: cloud.replace(theirs)
    status, shown = run(FIRST, SECOND)
    assert cloud.list == theirs and "s3://own/fleet.json has changed" in shown, shown
    # With --config, the stack is deployed by then.
    assert status == (2 if run.deploys else 1) and ("Nothing was deployed." in shown) is not run.deploys


def error(type, message):
    return {"errorType": type, "errorMessage": message}


def report(error_class, service):
    wrong = {"class": error_class, "service": service, "call": "it", "problem": "wrong", "remedy": "Mend it."}
    return {"targets_error": wrong, "targets": [{"name": "second", "outcome": "rotated"}]}


def failed(report):
    return error("RotationFailed", json.dumps(report))


@pytest.mark.parametrize(
    "answer",
    [
        error("StartRefused", 'function TARGETS_S3_URI: target "second": region: is empty. Correct it'),
        error("EventRefused", 'function event: there is no target "second". Correct it. function TARGETS_S3_URI: x'),
        failed(report("configuration", "function")),
        failed(report("permission", "s3")),
    ],
    ids=["start", "event", "configuration", "permission"],
)
def test_a_list_that_the_function_refuses_is_withdrawn(cloud, run, answer):
    cloud.rotation = answer
    status, shown = run(FIRST, SECOND)
    assert status == 2 and cloud.list == text_of(FIRST), shown
    assert "s3://own/fleet.json has the earlier one again" in shown and "not proven" not in shown


NOT_PROVEN = "The new list in s3://own/fleet.json is in use, but not proven."
PROVE = "python3 deploy.py --stack fleet --region us-east-1 --targets list.json"
PUT_BACK = "--bucket own --key fleet.json --region us-east-1 --copy-source 'own/fleet.json?versionId=v1'"


def assert_not_proven(cloud, status, shown):
    assert status == 2 and cloud.list == text_of(FIRST, SECOND), shown
    assert NOT_PROVEN in shown and PROVE in shown and PUT_BACK in shown, shown


@pytest.mark.parametrize(
    "answer",
    [
        {"errorMessage": "2026-01-01T00:00:00Z 5f1c9a52 Task timed out after 900.00 seconds"},
        error("Sandbox.Timedout", "RequestId: 5f1c9a52 Error: Task timed out after 900.00 seconds"),
        error("Runtime.ExitError", "RequestId: 5f1c9a52 Error: Runtime exited with error: signal: killed"),
        error("StartRefused", "function HTTPS_PROXY: it isn't a URL. Correct it"),
        # A function that has just started doesn't read the list again at once.
        error("EventRefused", 'function event: no target has the name "second". Correct it'),
        # Their cause is that S3 didn't answer.
        error("StartRefused", "S3 GetObject: no answer came in time. Try again"),
        error("EventRefused", 'function event: no target has the name "second". Correct it. S3 GetObject: status 503'),
        *(failed(report(kind, "s3")) for kind in ("timeout", "throttled", "unavailable")),
    ],
    ids=[
        "task timed out", "timed out", "exited", "other start", "other event", "start", "event",
        "timeout", "throttled", "unavailable",
    ],
)  # fmt: skip
def test_a_list_stays_if_the_function_has_not_refused_it(cloud, run, answer):
    cloud.rotation = answer
    status, shown = run(FIRST, SECOND)
    assert_not_proven(cloud, status, shown)


@pytest.mark.parametrize("code", ["TooManyRequestsException", "AccessDeniedException", "", None])
def test_a_proof_that_does_not_run_says_what_is_in_use(cloud, run, code):
    if code is None:
        cloud.faults["invoke"] = KeyboardInterrupt()
    else:
        cloud.fail_with("invoke", code)
    status, shown = run(FIRST, SECOND)
    assert_not_proven(cloud, status, shown)


def test_after_the_proof_a_failed_check_leaves_no_doubt_in_the_list(cloud, run, deploy, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(deploy, "doctor", interrupted)
    status, shown = run(FIRST, SECOND)
    assert status == 2 and "proven" not in shown and "The stack fleet is deployed." in shown, shown


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), None], ids=["Ctrl-C", "lost answer"])
def test_an_upload_without_an_answer_may_have_replaced_the_list(deploy, cloud, run, interruption):
    lost = interruption or deploy.AwsError("", "Connection was closed")
    # The function and the template are uploaded before the list.
    cloud.faults["head-object"] = lambda: cloud.faults.update({"put-object": lost})
    status, shown = run(FIRST, SECOND)
    assert status == 2 and "The new list in s3://own/fleet.json may be in use, but not proven." in shown, shown
    assert PROVE in shown


def test_an_upload_that_is_denied_leaves_no_doubt_in_the_list(cloud, run):
    cloud.faults["head-object"] = lambda: cloud.fail_with("put-object", "AccessDenied")
    status, shown = run(FIRST, SECOND)
    assert cloud.list == text_of(FIRST) and "proven" not in shown, shown
    assert status == (2 if run.deploys else 1)


@pytest.mark.parametrize("theirs", [text_of(FIRST, THIRD), None], ids=["changed", "deleted"])
def test_a_list_of_somebody_else_is_not_withdrawn(cloud, run, theirs):
    cloud.rotation = error("StartRefused", "function TARGETS_S3_URI: wrong. Correct it")
    cloud.faults["invoke"] = lambda: cloud.replace(theirs)
    status, shown = run(FIRST, SECOND)
    assert status == 2 and cloud.list == theirs and "s3://own/fleet.json has changed" in shown, shown


@pytest.mark.parametrize("before", [text_of(FIRST, SECOND), b"[", None], ids=["the same", "unreadable", "none"])
def test_what_the_function_cannot_use_either_is_not_put_back(cloud, run, before):
    cloud.list = before
    cloud.rotation = error("StartRefused", "function TARGETS_S3_URI: wrong. Correct it")
    status, shown = run(FIRST, SECOND, options=["--yes"])
    assert status == 2 and cloud.list == text_of(FIRST, SECOND) and "has no earlier one" in shown, shown
