"""The proof through Braintrust, which a target asks for."""

MODEL = "amazon.nova-micro-v1:0"
END_TO_END = {"model": MODEL}
COMPLETION = "POST /v1/proxy/chat/completions"
