"""Braintrust's AI proxy: a chat completion by a Bedrock model, with the credentials of one of the `ai_secret`s.

It does what the open-source proxy does. It starts with a random `ai_secret` of the organization, keeps the credentials
that it has looked up for a minute, and answers an exception of the AWS SDK with 400 and the exception's text, without
saying which `ai_secret` it used.
"""

import json
import random
import re
import time
from collections.abc import Callable, Iterable
from http.client import HTTPConnection
from urllib.parse import quote, urlsplit

from .braintrust_rest import BraintrustKey, BraintrustRefusal
from .http_messages import RecordedRequest, Reply
from .readers import Unreadable, todays_proxy

COMPLETIONS = "/v1/proxy/chat/completions"
_CACHED_FOR = 60
_BEDROCK_MODEL = re.compile(r"(?:[a-z]+\.)?(?:amazon|anthropic|meta|mistral)\..+")


class LocalAiProxy:
    """`bedrock` is the URL of Bedrock. Without one, a data plane has no proxy."""

    def __init__(self, bedrock: str | None):
        self._bedrock = bedrock
        self._cached: dict[tuple, tuple[float, list[dict]]] = {}
        # An older gateway may not read the header that names an ai_secret.
        self.ignores_names = False
        # A gateway passes on Bedrock's own status, and says whose credentials it used.
        self.passes_refusals_on = False

    def answer(self, request: RecordedRequest, key: BraintrustKey, ai_secrets: Callable[[], Iterable[dict]]) -> Reply:
        if self._bedrock is None:
            raise BraintrustRefusal(404, "Not found")
        asked = request.json()
        found = self._looked_up(request, key, asked["model"], ai_secrets)
        if (name := request.headers.get("x-bt-endpoint-name")) and not self.ignores_names:
            found = [ai_secret for ai_secret in found if ai_secret["name"] == name]
        if not _BEDROCK_MODEL.fullmatch(asked["model"]) or not found:
            raise BraintrustRefusal(400, f"Error: No API keys found (for {asked['model']}).")
        ai_secret = random.choice(found)
        try:
            status, headers, body = self._converse(todays_proxy(ai_secret, "chat/completions"), asked)
        except Unreadable as unreadable:
            raise BraintrustRefusal(400, f"Error: {unreadable}") from None
        used = {"x-bt-used-endpoint": ai_secret["name"], "x-bt-cached": "MISS"}
        if status == 200:
            text = json.loads(body)["output"]["message"]["content"][0]["text"]
            choices = [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "length"}]
            return Reply(200, json.dumps({"object": "chat.completion", "choices": choices}), used)
        exception = headers.get("x-amzn-errortype", "InternalServerException")
        if self.passes_refusals_on:
            return Reply(status, body, {**used, "x-amzn-errortype": exception})
        if status >= 500:
            return Reply(500, f"{exception}: try again", content_type="text/plain")
        message = json.loads(body).get("message") or json.loads(body).get("Message")
        raise BraintrustRefusal(400, f"{exception}: {message}")

    def _looked_up(self, request: RecordedRequest, key: BraintrustKey, model: str, ai_secrets) -> list[dict]:
        """The organization's Bedrock ai_secrets, as they were up to a minute ago."""
        org_name = request.headers.get("x-bt-org-name")
        cache_key = request.headers["authorization"], model, org_name
        at, found = self._cached.get(cache_key, (float("-inf"), []))
        if request.headers.get("x-bt-use-creds-cache") == "never" or time.monotonic() - at > _CACHED_FOR:
            orgs = [org for org in key.orgs if org_name in (None, org)]
            ai_secrets = [ai_secret for ai_secret in ai_secrets() if "object_id" not in ai_secret]
            found = [s for s in ai_secrets if s["org_name"] in orgs and s["type"] == "bedrock"]
            self._cached[cache_key] = time.monotonic(), found
        return found

    def _converse(self, credentials: dict, asked: dict) -> tuple[int, dict[str, str], bytes]:
        messages = [{"role": m["role"], "content": [{"text": m["content"]}]} for m in asked["messages"]]
        body = {"messages": messages, "inferenceConfig": {"maxTokens": asked["max_tokens"]}}
        body, path = json.dumps(body).encode(), f"/model/{quote(asked['model'], safe=':')}/converse"
        bedrock = urlsplit(self._bedrock)
        connection = HTTPConnection(bedrock.hostname, bedrock.port, timeout=30)
        try:
            connection.request("POST", path, body, self._headers(credentials, path, body))
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def _headers(self, credentials: dict, path: str, body: bytes) -> dict[str, str]:
        region = credentials["region"]
        headers = {"content-type": "application/json", "host": f"bedrock-runtime.{region}.amazonaws.com"}
        if credentials["auth_type"] == "api_key":
            return {**headers, "authorization": f"Bearer {credentials['secret']}"}
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        signed = AWSRequest("POST", f"https://{headers['host']}{path}", headers=headers, data=body)
        signer = Credentials(*(credentials[name] for name in ("access_key", "secret", "session_token")))
        SigV4Auth(signer, "bedrock", region).add_auth(signed)
        return dict(signed.headers.items())
