"""Autodiscover version 2: one question without a credential, answered in JSON [Microsoft: Autodiscover v2]."""

import json
from urllib.parse import quote, urlencode

from eas_watcher.commands.request import HttpReply

OK = 200


def question(host: str, address: str) -> str:
    """Return the URL that asks `host` (with its port, unless it is 443) for the ActiveSync URL of an address."""
    query = urlencode({"Email": address, "Protocol": "ActiveSync", "RedirectCount": "1"}, quote_via=quote, safe="")
    return f"https://{host}/autodiscover/autodiscover.json?{query}"


def read_url(reply: HttpReply) -> str | None:
    """Read the URL in an answer; None for any other answer, because many hosts know version 1 only."""
    if reply.status != OK:
        return None
    try:
        document = json.loads(reply.body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or str(document.get("Protocol", "")).lower() != "activesync":
        return None
    url = document.get("Url")
    return url if isinstance(url, str) and url else None
