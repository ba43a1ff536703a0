"""The kinds of credentials."""

ROLE_BASED = ["temporary", "short_term_api_key"]
USER_BASED = ["access_key", "long_term_api_key"]
KINDS = ["temporary", "access_key", "short_term_api_key", "long_term_api_key"]
