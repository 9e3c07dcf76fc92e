"""What mail servers and token endpoints say to a client that shows no credential, and what it means; without I/O."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from eas_watcher.auth.bearer import read_challenge, read_schemes
from eas_watcher.commands.options import Capabilities, Options
from eas_watcher.commands.request import HttpReply
from eas_watcher.errors import AccessDenied, CredentialVoid, EasError, ProtocolViolation, Unreachable
from eas_watcher.heartbeat import Heartbeat
from eas_watcher.names import ProtocolVersion
from eas_watcher.server.idle_timeout import OFTEN, IdleTimeout
from relay.doctor.finding import Finding, Subject
from relay.domain.reasons import REASONS
from relay.security.credentials import CredentialKind

OK: Final = 200
UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
SERVER_ERRORS: Final = range(500, 600)
REDIRECTS: Final = range(300, 400)

SCHEMES: Final = {
    CredentialKind.BASIC: "Basic",
    CredentialKind.OAUTH: "Bearer",
    CredentialKind.KERBEROS: "Negotiate",
}
"""What a server must offer for each kind of credential; a certificate is asked for by TLS."""
CLOUD: Final = ("office365.com", "outlook.com", "office.com", "partner.outlook.cn", "office365.us")
"""The domains of Exchange Online, which takes no device below 16.1 [Microsoft: EAS versions below 16.1, 2026-03]."""

URL: Final = "check servers.{name}.url: it is the address where phones find ActiveSync"
METHOD: Final = "let what stands before the mail server pass the methods OPTIONS and POST on this path"
LATER: Final = "see why the mail server, or the proxy before it, cannot answer"
ALLOW_BASIC: Final = (
    "enable one of these on the ActiveSync path of the server, or set servers.{name}.credentials to what it offers"
)
RAISE: Final = "upgrade the server (Exchange 2016 and later speak 16.1), or let nothing on the way lower its versions"
BELOW: Final = "Exchange Online takes no device below 16.1: put 16.1 into servers.{name}.versions"


def judge_options(
    name: str, url: str, kinds: frozenset[CredentialKind], reply: HttpReply, seconds: float
) -> list[Finding]:
    """Return the findings about the answer of the server `name` to OPTIONS without a credential."""
    subject = Subject("ActiveSync", f"servers.{name}")
    build = reply.headers.get("ms-server-activesync", "")[:20]
    server = f", server build {build}" if build else ""
    if reply.status == UNAUTHORIZED:
        return [subject.good(f"asks for a login{server}", seconds), _judge_schemes(name, kinds, reply)]
    if reply.status == OK:
        try:
            offered = Options().read(reply)
        except ProtocolViolation:
            return [subject.bad("what answers is no ActiveSync server", URL.format(name=name))]
        return [subject.good(f"answers without a login{server}", seconds), judge_versions(name, url, offered)]
    wrong, remedy = _refusal(reply.status)
    judge = subject.note if reply.status == FORBIDDEN else subject.bad
    return [judge(f"{wrong} (HTTP {reply.status})", remedy.format(name=name))]


def _refusal(status: int) -> tuple[str, str]:
    """Return what an answer means that is neither a login nor a welcome, and what to do."""
    if status == FORBIDDEN:
        return "refuses clients without a login", URL
    if status == NOT_FOUND or status in REDIRECTS:
        return "there is no ActiveSync at this URL", URL
    return ("cannot answer", LATER) if status in SERVER_ERRORS else ("does not take OPTIONS", METHOD)


def _judge_schemes(name: str, kinds: frozenset[CredentialKind], reply: HttpReply) -> Finding:
    """Return the finding about the ways to log in that a server offers."""
    subject = Subject("login", f"servers.{name}")
    header = reply.headers.get("www-authenticate", "")
    schemes, challenge = read_schemes(header), read_challenge(header)
    issuer = f"; tokens of {challenge.authority}" if challenge is not None and challenge.authority else ""
    text = f"offers {', '.join(schemes)}{issuer}" if schemes else "names no way to log in"
    wanted = {kind: SCHEMES[kind] for kind in sorted(kinds) if kind in SCHEMES}
    lacking = [scheme for scheme in wanted.values() if scheme not in schemes]
    if not schemes or not lacking:
        return subject.good(text)
    remedy = ALLOW_BASIC.format(name=name)
    if len(lacking) == len(kinds):
        return subject.bad(f"{text}; the settings want {', '.join(lacking)}", remedy)
    return subject.note(f"{text}; the settings want {', '.join(lacking)} too", remedy)


def judge_versions(name: str, url: str, offered: Capabilities) -> Finding:
    """Return the finding about the protocol versions that a server offers."""
    subject = Subject("version", f"servers.{name}")
    shown = ", ".join([*offered.unknown, *(version.wire for version in offered.versions)]) or "none"
    if not offered.versions:
        return subject.bad(f"offers {shown}, none of which the relay speaks", RAISE)
    return _judge_highest(subject, url, f"offers {shown}", max(offered.versions))


def judge_spoken(
    name: str, url: str, allowed: tuple[ProtocolVersion, ...], spoken: Mapping[int, int]
) -> Finding | None:
    """Return the finding about the versions that the mailboxes of a server speak; None: none does, or may be wrong."""
    subject = Subject("version", f"servers.{name}")
    if in_cloud(url) and ProtocolVersion.V16_1 not in allowed:
        return subject.bad("16.1 is not among the versions that may be spoken", BELOW.format(name=name))
    known = {ProtocolVersion(version): count for version, count in spoken.items() if version in set(ProtocolVersion)}
    if not known:
        return None
    shown = ", ".join(f"{count} mailboxes speak {version.wire}" for version, count in sorted(known.items()))
    if ProtocolVersion.V16_1 not in allowed:
        return subject.note(
            f"{shown}; 16.1 may not be spoken", f"put 16.1 into servers.{name}.versions if nothing forbids it"
        )
    return _judge_highest(subject, url, shown, max(known))


def _judge_highest(subject: Subject, url: str, text: str, highest: ProtocolVersion) -> Finding:
    if highest >= ProtocolVersion.V16_1:
        return subject.good(text)
    if in_cloud(url):
        return subject.bad(f"{text}, below 16.1, which Exchange Online demands", RAISE)
    return subject.note(f"{text}, below 16.1: it works, but Exchange Online will not take it", RAISE)


def in_cloud(url: str) -> bool:
    """Return True if a URL is one of Exchange Online."""
    host = urlsplit(url).hostname or ""
    return any(host == domain or host.endswith(f".{domain}") for domain in CLOUD)


def judge_heartbeat(name: str, configured: Heartbeat, average: float | None, cut: IdleTimeout | None) -> Finding:
    """Return the finding about the Pings of a server: their interval, and the idle timeout on the way."""
    subject = Subject("heartbeat", f"servers.{name}")
    bounds = f"Pings of {configured.minimum} to {configured.maximum} s"
    if average is not None:
        bounds += f", {average:.0f} s on average"
    if cut is not None and cut.middle < configured.minimum:
        text = f"{bounds}; something on the way cuts them after {cut.middle:.0f} s"
        remedy = f"raise that idle timeout above {configured.maximum} s, or lower servers.{name}.heartbeat_minimum"
        return subject.bad(text, remedy)
    if cut is not None:
        remedy = "raise that idle timeout (firewall, balancer, proxy) to 30 minutes: each mailbox asks less often then"
        return subject.note(f"{bounds}; something on the way cuts longer ones after {cut.middle:.0f} s", remedy)
    if average is not None and average < OFTEN:
        remedy = "see `relay explain` of a mailbox: the server's maximum or an idle timeout on the way is short"
        return subject.note(f"{bounds}: each mailbox asks often", remedy)
    return subject.good(bounds)


def judge_token(name: str, error: EasError | None, seconds: float) -> Finding:
    """Return the finding about a token endpoint that was asked with a made-up refresh token; None: it took that."""
    subject = Subject("OAuth", f"servers.{name}.oauth_token_endpoint")
    match error:
        case None:
            return subject.bad("gives a token for a made-up refresh token", "check the URL: this is no token endpoint")
        case CredentialVoid():
            return subject.good("takes the relay's client id, and refuses a made-up refresh token", seconds)
        case AccessDenied():
            return subject.bad(
                str(error), f"compare servers.{name}.oauth_client_id, its secret and oauth_scope with it"
            )
        case _:
            return subject.bad(str(error), "see that the identity provider runs, and check the URL")


def judge_ticket(name: str, error: EasError | None, seconds: float) -> Finding:
    """Return the finding about the relay's own ticket for a mail server; None: there is one."""
    subject = Subject("Kerberos", f"servers.{name}.kerberos_principal")
    match error:
        case None:
            return subject.good("the KDC gives the relay a ticket for the mail server", seconds)
        case Unreachable():
            return subject.bad(str(error), "check DNS (SRV _kerberos), /etc/krb5.conf, and port 88 to the KDC")
        case AccessDenied() | CredentialVoid():
            return subject.bad(str(error), REASONS[error.reason].remedy)
        case _:
            return subject.bad(str(error), "see docs/authentication.md")


def judge_search(host: str, address: str, found: str | EasError, seconds: float) -> Finding:
    """Return the finding about an Autodiscover host that was asked for a made-up address, without a credential."""
    subject = Subject("Autodiscover", host)
    match found:
        case str():
            return subject.good(f"names {found} for {address}", seconds)
        case AccessDenied() if "without the credential" in str(found):
            return subject.good("answers, and tells more with a credential only", seconds)
        case AccessDenied():
            return subject.bad(str(found), "add that host to autodiscover.hosts if mailboxes may be there")
        case _:
            return subject.bad(
                str(found), "see that the host answers Autodiscover, or remove it from autodiscover.hosts"
            )
