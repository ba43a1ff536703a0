"""AWS and Braintrust at one address for one function, so that a test can disturb each function separately."""

from .http_messages import RecordedRequest, Reply
from .local_aws import LocalAws
from .local_braintrust import LocalBraintrust
from .recording_server import RecordingServer


class CallInterceptor(RecordingServer):
    def __init__(self, aws: LocalAws, braintrust: LocalBraintrust):
        super().__init__()
        self._aws = aws
        self._braintrust = braintrust

    def call_name(self, request: RecordedRequest) -> str:
        return self._behind(request).call_name(request)

    def handle(self, request: RecordedRequest) -> Reply:
        return self._behind(request).handle(request)

    def _behind(self, request: RecordedRequest) -> RecordingServer:
        return self._braintrust if request.path.startswith("/v1/") else self._aws
