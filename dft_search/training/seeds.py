"""Seeds from seeds: one number for one purpose, the same on every machine."""

import hashlib


def derive(*parts: int | str) -> int:
    """A 63-bit seed that depends on all ``parts`` (a root seed, a purpose, a step, ...)."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
