"""AWS and Braintrust at one address for one function, so that a test can disturb each function separately."""

from collections.abc import Callable

from .http_messages import RecordedRequest, Reply
from .local_aws import LocalAws
from .local_braintrust import LocalBraintrust
from .recording_server import RecordingServer


class CallInterceptor(RecordingServer):
    """`act`, if given, answers the requests instead. It gets each request, and the callable that would answer it."""

    def __init__(self, aws: LocalAws, braintrust: LocalBraintrust, act: Callable[..., Reply] | None = None):
        super().__init__()
        self._aws = aws
        self._braintrust = braintrust
        self._act_on = act

    def call_name(self, request: RecordedRequest) -> str:
        return self._behind(request).call_name(request)

    def handle(self, request: RecordedRequest) -> Reply:
        handle = self._behind(request).handle
        return self._act_on(request, handle) if self._act_on else handle(request)

    def inspect(self, request: RecordedRequest, reply: Reply | None):
        self._behind(request).inspect(request, reply)

    def _behind(self, request: RecordedRequest) -> RecordingServer:
        return self._braintrust if request.path.startswith("/v1/") else self._aws
