"""Reading ids. Importing this is quick, because it needs nothing of the schema."""

from __future__ import annotations

import base64
import binascii
import re

BARE_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def parse_global_id(value: str) -> tuple[str, str] | None:
    """The type and the key of a global id; None for other texts."""
    try:
        type_name, colon, key = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (type_name, key) if colon and type_name.isidentifier() else None
