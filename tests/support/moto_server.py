"""moto, an independent implementation of AWS, which checks signatures and permissions."""

import atexit
import json
import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import boto3

from .local_cloud import REGION
from .ports import free_port
from .processes import kill_tree

_MAIN = Path(__file__).with_name("moto_main.py")
_UNTIL_TOLD = "1000000"
_ANYTHING = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}


class MotoServer:
    def __init__(self, python: Path):
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._directory = tempfile.TemporaryDirectory(prefix="moto-")
        self._log = Path(self._directory.name, "moto.log")
        # moto checks the signature and permissions of all calls but the first ones, which create an administrator.
        environment = {"PATH": os.environ.get("PATH", os.defpath), "INITIAL_NO_AUTH_ACTION_COUNT": _UNTIL_TOLD}
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [str(python), "-P", str(_MAIN), str(self._port)],
                env=environment,
                cwd=self._directory.name,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        atexit.register(self.stop)
        self._wait_until_it_answers()
        self._administrator = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
        self._administrator = self._new_administrator()
        self._check_everything_from_now_on()

    def stop(self):
        atexit.unregister(self.stop)
        kill_tree(self._process)
        self._directory.cleanup()

    def client(self, service: str, **credentials: str):
        """A boto3 client with these credentials, or with those of an administrator."""
        session = boto3.session.Session(region_name=REGION, **(credentials or self._administrator))
        return session.client(service, endpoint_url=self.url)

    def new_role(self, *actions: str, trusts: str) -> str:
        """The ARN of a role that the principal `trusts` may assume, and that may take the actions."""
        trust = {"Effect": "Allow", "Principal": {"AWS": trusts}, "Action": "sts:AssumeRole"}
        iam, name = self.client("iam"), f"role-{uuid.uuid4().hex[:8]}"
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=_policy(trust))["Role"]["Arn"]
        allowed = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
        iam.put_role_policy(RoleName=name, PolicyName="allowed", PolicyDocument=_policy(allowed))
        return arn

    def new_user(self, *actions: str) -> str:
        iam, name = self.client("iam"), f"user-{uuid.uuid4().hex[:8]}"
        iam.create_user(UserName=name)
        allowed = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
        iam.put_user_policy(UserName=name, PolicyName="allowed", PolicyDocument=_policy(allowed))
        return name

    def new_key(self, user: str) -> dict[str, str]:
        key = self.client("iam").create_access_key(UserName=user)["AccessKey"]
        return {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}

    def _new_administrator(self) -> dict[str, str]:
        iam = self.client("iam")
        iam.create_user(UserName="administrator")
        iam.put_user_policy(UserName="administrator", PolicyName="all", PolicyDocument=json.dumps(_ANYTHING))
        return self.new_key("administrator")

    def _check_everything_from_now_on(self):
        headers = {"content-type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/reset-auth", b"0", headers)).close()

    def _wait_until_it_answers(self, timeout: float = 60):
        deadline = time.monotonic() + timeout
        while True:
            try:
                return urllib.request.urlopen(f"{self.url}/moto-api/data.json").close()
            except (urllib.error.URLError, ConnectionError):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"moto did not start:\n{self._log.read_text()}") from None
                time.sleep(0.05)


def _policy(statement: dict) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
