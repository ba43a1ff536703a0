"""Lambda's runtime loop, as far as the bench needs it, in the place of the managed Python runtime's own."""

import http.client
import json
import os

import function  # what it does at its top is part of the cold start, as it is in Lambda

INVOCATION = "/2018-06-01/runtime/invocation"

api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
while True:
    api.request("GET", f"{INVOCATION}/next")
    invocation = api.getresponse()
    event = json.loads(invocation.read())
    try:
        answer, kind = function.handler(event, None), "response"
    except Exception as error:
        answer, kind = {"errorType": type(error).__name__, "errorMessage": str(error)}, "error"
    request_id = invocation.headers["Lambda-Runtime-Aws-Request-Id"]
    api.request("POST", f"{INVOCATION}/{request_id}/{kind}", json.dumps(answer))
    api.getresponse().read()
