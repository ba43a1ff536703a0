"""Reads the values of staged secrets."""


def secret_of(staged_value: dict) -> str:
    """The secret part of the credentials, which Braintrust keeps encrypted."""
    return staged_value.get("api_key") or staged_value["aws_secret_access_key"]
