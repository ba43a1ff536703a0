"""A minimal Lambda runtime loop, which stands in for that of the managed Python runtime."""

import http.client
import json
import os

import function  # at the top of the file, because its initialization is part of the cold start, as in Lambda

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
