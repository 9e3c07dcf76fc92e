"""Own what a server says to somebody without a credential: how its users may log in, and who issues its tokens."""

from dataclasses import replace

from eas_watcher.auth.bearer import read_challenge, read_schemes
from eas_watcher.commands.options import Options
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.http_request import compose
from eas_watcher.tools.probe.finding import Finding, Grade

UNAUTHORIZED = 401


def question(account: Account) -> HttpRequest:
    """Write OPTIONS with an empty token, to which Exchange answers who issues tokens; no user is tried by it."""
    request = compose(account, Options(), None, None)
    return replace(request, headers={**request.headers, "Authorization": "Bearer"})


def read_ways(reply: HttpReply) -> Finding:
    """Tell which ways to log in the answer offers; none is bad, for a proxy may stand before it."""
    if reply.status != UNAUTHORIZED:
        text = f"the server does not ask strangers to log in (HTTP {reply.status})"
        return Finding("Login", Grade.SKIPPED, text)
    header = reply.headers.get("www-authenticate", "")
    schemes, challenge = read_schemes(header), read_challenge(header)
    text = f"the server offers {', '.join(schemes)}" if schemes else "the server names no way to log in"
    if challenge is None:
        return Finding("Login", Grade.GOOD if schemes else Grade.NOTE, text)
    if not challenge.authority:
        return Finding("Login", Grade.NOTE, f"{text}; it names no issuer of tokens, so OAuth will not do")
    return Finding("Login", Grade.GOOD, f"{text}; it wants tokens of {challenge.authority}")
