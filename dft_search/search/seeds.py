"""Seeds from seeds, the same on every machine."""

import hashlib


def derive_seed(*parts: object) -> int:
    """A seed of 31 bits from any values."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
