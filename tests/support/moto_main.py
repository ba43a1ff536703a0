"""Starts moto's server with ListFoundationModels added to its Bedrock, because the function proves credentials with
that call. moto itself checks the call's signature and permissions.

    moto_main.py PORT

This runs in moto's own Python environment.
"""

import sys

from moto.bedrock.responses import BedrockResponse
from moto.core.responses import ActionResult
from moto.server import main


class _Bedrock(BedrockResponse):
    def call_action(self):
        if not self.body:
            # Without this, moto would compute the signature as if the headers were parameters in a body.
            self.data = {}
        return super().call_action()

    def list_foundation_models(self) -> ActionResult:
        return ActionResult({"modelSummaries": []})


BedrockResponse.dispatch = _Bedrock.dispatch
main(["--host", "127.0.0.1", "--port", sys.argv[1]])
