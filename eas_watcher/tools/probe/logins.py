"""What a server says to a client without a credential: how its users may log in, and who issues its tokens."""

from eas_watcher.auth.bearer import read_challenge, read_schemes
from eas_watcher.commands.request import HttpReply
from eas_watcher.tools.probe.finding import Finding, Grade

UNAUTHORIZED = 401


def read_schemes_offered(reply: HttpReply) -> Finding:
    """Return which ways to log in the answer offers; the finding is never bad, because a proxy may have answered."""
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
