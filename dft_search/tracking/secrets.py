"""Passwords and tokens never reach a message, a log or the record: they are masked on the way out."""

import os
import re

_IN_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^/?#\s'\"]*)@")
_IN_QUERY = re.compile(
    r"(?P<key>(?:^|[?&;\s\"'])[A-Za-z0-9_.-]*(?:password|passwd|pwd|secret|token|api[_-]?key|signature|credential)"
    r"[A-Za-z0-9_.-]*=)[^&;\s\"']+",
    re.IGNORECASE,
)
_IN_HEADER = re.compile(r"(?P<kind>\b(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{6,}")
_VARIABLES = (
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "RAY_AUTH_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "HF_TOKEN",
)


def mask(text: str) -> str:
    """``text`` without the secrets that can be told: user parts of URLs, query values, headers, known variables.

    ``postgresql://ann:pw@host/db`` becomes ``postgresql://***@host/db``.
    """
    for name in _VARIABLES:
        value = os.environ.get(name, "")
        if len(value) >= 4:
            text = text.replace(value, "***")
    text = _IN_URL.sub(r"\g<scheme>***@", text)
    text = _IN_QUERY.sub(r"\g<key>***", text)
    return _IN_HEADER.sub(r"\g<kind>***", text)
