"""Secrets that sign webhooks: `whsec_…`, as Standard Webhooks writes them."""

import base64
import binascii
import secrets

PREFIX = "whsec_"


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def secret_bytes(secret: str) -> bytes:
    """What `whsec_…` stands for; raises ValueError."""
    try:
        found = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        found = b""
    if not secret.startswith(PREFIX) or not 24 <= len(found) <= 64:
        raise ValueError(f"must be {PREFIX} and the base64 of 24 to 64 bytes")
    return found
