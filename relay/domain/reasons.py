"""The one table of reasons: who must act on each, what that is, and when the relay checks again.

`relay explain`, health, the API and docs/reasons.md take their words from here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum, StrEnum, auto
from types import MappingProxyType
from typing import Final

from eas_watcher.machine.memory import WatchState
from eas_watcher.reasons import Reason


class Actor(StrEnum):
    """Who must act; the API shows the value."""

    NOBODY = "nobody"
    APP = "app"
    USER = "user"
    ADMINISTRATOR = "administrator"


class Cause(StrEnum):
    """Why the phones get an `attention` push, in the few words that leave the company; they stay the same for ever."""

    WIPED = "wiped"
    """An administrator wiped the device: the app removes its data."""
    CREDENTIAL = "credential"
    """The mail server or the relay does not take the credential any more: the user logs in again."""
    BLOCKED = "blocked"
    """The mail server denies access: an administrator must act."""


class Concern(Enum):
    """What a reason lies with."""

    RELAY = auto()
    """The relay's settings, or its own login: no user can change it, so an app may see it before its user is known."""
    SERVER = auto()
    """The mail server or the path to it: many mailboxes have it at the same time."""
    MAILBOX = auto()
    """One mailbox, its user or its device."""


class Recheck(StrEnum):
    """When the relay checks a reason again, as the end of a sentence."""

    BACKOFF = "after 5 s, later after up to 10 min"
    AS_ASKED = "when the mail server says, else after 5 s, later after up to 10 min"
    CONFIRMED = (
        "after 1 min, and after 15 min or once a try is left; "
        "the third refusal ends the watch, or leaves the server in doubt"
    )
    IN_DOUBT = "when the mail server accepts others again or changes, else after an hour, then once a day"
    QUARTER_HOURLY = "every 15 min"
    HOURLY = "every hour"
    SIX_HOURLY = "every 6 hours"
    DAILY = "once a day"
    WHILE_WATCHED = "with every Ping"
    NEW_CREDENTIAL = "when the app sends a new credential"
    NEW_START = "when it starts, and when an app registers for the mailbox again"
    NEW_KEY = "when it gets another sealing key or starts, and when an app registers for the mailbox again"
    RESUMED = "when an administrator resumes it"
    MAINTAINED = "when an administrator ends the maintenance"
    NEVER = "never"
    AS_NEWER = "as the newer version does"


@dataclass(frozen=True, slots=True)
class Row:
    """What follows from a reason."""

    actor: Actor
    words: str
    """For the app and its user."""
    remedy: str
    """For the administrator."""
    recheck: Recheck
    concern: Concern = Concern.MAILBOX
    access_rule: bool = False
    """Whether the remedy is to let the relay's device in on the mail server."""


def _server(remedy: str, recheck: Recheck = Recheck.BACKOFF, actor: Actor = Actor.NOBODY) -> Row:
    """Return the row of a wait that passes by itself, unless the mail server or the way to it needs repair."""
    words = "The relay cannot watch the mailbox now; it tries again by itself."
    if actor is Actor.ADMINISTRATOR:
        words = "The mailbox's server and the relay do not work together: its administrator must act."
    return Row(actor, words, remedy, recheck, Concern.SERVER)


def _blocked(words: str, remedy: str, recheck: Recheck = Recheck.HOURLY, actor: Actor = Actor.ADMINISTRATOR) -> Row:
    """Return the row of a mailbox whose access the mail server denies."""
    return Row(actor, words, remedy, recheck)


def _device(remedy: str, recheck: Recheck = Recheck.HOURLY) -> Row:
    """Return the row of a mailbox whose server may not let the relay's device in."""
    words = "The mailbox's server denies access: allow the relay's device there."
    return Row(Actor.ADMINISTRATOR, words, remedy, recheck, access_rule=True)


def _url(remedy: str, recheck: Recheck = Recheck.HOURLY) -> Row:
    """Return the row of a URL that does not serve the mailbox."""
    words = "The relay asks for the mailbox at a place that does not serve it: its administrator must correct that."
    return Row(Actor.ADMINISTRATOR, words, remedy, recheck, Concern.SERVER)


def _elsewhere(remedy: str) -> Row:
    """Return the row of a mailbox that another server has than the one which serves the others."""
    return replace(_url(remedy), concern=Concern.MAILBOX)


def _relay(remedy: str, recheck: Recheck = Recheck.HOURLY) -> Row:
    """Return the row of what the relay itself lacks; the app hears no more than that."""
    words = "The relay cannot watch the mailbox: its administrator sees why."
    return Row(Actor.ADMINISTRATOR, words, remedy, recheck, Concern.RELAY)


def _credential(actor: Actor, words: str, remedy: str) -> Row:
    """Return the row of a credential that is of no use any more."""
    return Row(actor, words, remedy, Recheck.NEW_CREDENTIAL)


_LOGIN: Final = "The user must log in again in the app"
_KEYS: Final = "look at its health, and whether two relays share the mailbox."
_WIPED: Final = Row(
    Actor.ADMINISTRATOR,
    "An administrator wiped this device: remove its data, ask for leave, then register again.",
    "The device was wiped: when the data on the phone is gone, allow the device again and run "
    "`relay wipes allow USER`; then the user registers again.",
    Recheck.NEVER,
)

REASONS: Final[Mapping[Reason, Row]] = MappingProxyType(
    {
        Reason.UNREACHABLE: _server(
            "Check that this host reaches the mail server: name, port 443, firewall, and its certificate."
        ),
        Reason.PROXY_AWAY: _server(
            "The proxy in servers.NAME.proxy opens no tunnel, and the mail server was not asked: check that the proxy "
            "runs, that this host reaches it, and what the line `because` says."
        ),
        Reason.PROXY_REFUSES: _server(
            "The proxy in servers.NAME.proxy refuses the relay, the mail server was not asked: correct what the line "
            "`because` names, the proxy's rules or servers.NAME.proxy_user and what belongs to it.",
            actor=Actor.ADMINISTRATOR,
        ),
        Reason.SERVER_BUSY: _server(
            "The mail server asks to wait or has an error, e.g. a full mailbox: look at its load, its health and its "
            "throttling policy.",
            Recheck.AS_ASKED,
        ),
        Reason.PROTOCOL_VIOLATION: _server(
            "Something else answers in the mail server's place: check servers.NAME.url, reverse proxies and portals."
        ),
        Reason.FAILED: Row(
            Actor.ADMINISTRATOR,
            "The relay failed to watch the mailbox: its administrator sees why.",
            "The relay has no remedy for this error: report it with the line `because` and the log.",
            Recheck.BACKOFF,
        ),
        Reason.HTTP_401: _credential(
            Actor.USER,
            "The mailbox's server does not take the credential any more: log in with the new one.",
            f"{_LOGIN}, e.g. with the present password; the relay tries none before.",
        ),
        Reason.HTTP_401_MANY: _server(
            "The mail server refuses many credentials at once: look at its directory and its mailbox store; the relay "
            "asks no user to log in again.",
            Recheck.CONFIRMED,
        ),
        Reason.HTTP_401_DOUBTFUL: Row(
            Actor.USER,
            "The mailbox's server refused the credential three times, perhaps by a fault of its own: log in again only "
            "if you changed the password; the relay tries the present one again by itself.",
            "The mail server refused this credential three times, and not this one alone as far as the relay saw: look "
            "at its directory and its mailbox store. A user who changed the password logs in again in the app.",
            Recheck.IN_DOUBT,
            Concern.SERVER,
        ),
        Reason.CREDENTIAL_UNUSABLE: _credential(
            Actor.USER,
            "The relay cannot use the stored credential: log in again.",
            "The app must register again: the relay cannot use the stored credential; the line `because` says why.",
        ),
        Reason.CERTIFICATE_EXPIRED: _credential(
            Actor.APP,
            "The client certificate has ended: send the next one.",
            "The app must register the user's next certificate: issue one.",
        ),
        Reason.OAUTH_INVALID_GRANT: _credential(
            Actor.USER,
            "The grant was withdrawn or has ended: log in again.",
            f"{_LOGIN}: the grant was withdrawn or has ended.",
        ),
        Reason.OAUTH_INTERACTION_REQUIRED: _credential(
            Actor.USER,
            "The identity provider wants to ask you something: log in again.",
            f"{_LOGIN}: the identity provider wants to ask something first, e.g. for a second factor.",
        ),
        Reason.OAUTH_LOGIN_REQUIRED: _credential(
            Actor.USER,
            "The identity provider wants you to log in again.",
            f"{_LOGIN}: the identity provider has ended the session.",
        ),
        Reason.OAUTH_CONSENT_REQUIRED: _credential(
            Actor.USER,
            "The identity provider wants your consent: log in again.",
            f"{_LOGIN} and agree; or give the consent for all users at the identity provider.",
        ),
        Reason.KERBEROS_USER_UNKNOWN: _credential(
            Actor.ADMINISTRATOR,
            "The company's directory does not know the user any more.",
            "The directory has no such user: nothing, if the user left; else check the spelling of the user.",
        ),
        Reason.KERBEROS_USER_LOCKED: _blocked(
            "The user's account is disabled, expired or locked: unlock it.",
            "The user's account is disabled, expired or locked: unlock it.",
        ),
        Reason.OAUTH_CLIENT: _relay(
            "The token endpoint refuses the relay: check oauth_client_id, its secret and oauth_scope."
        ),
        Reason.OAUTH_AUDIENCE: _relay(
            "The token endpoint gives tokens for another service: check oauth_scope and oauth_audience."
        ),
        Reason.KERBEROS_KEYTAB: _relay(
            "The KDC does not accept the key of the relay: export the keytab of kerberos_principal again."
        ),
        Reason.KERBEROS_CLOCK: _relay(
            "The clock of this host differs from that of the KDC by more than five minutes: set it."
        ),
        Reason.KERBEROS_TARGET: _relay(
            "No account has the service name of the mail server: setspn -S HTTP/HOST ACCOUNT, or set kerberos_target."
        ),
        Reason.KERBEROS_DELEGATION: _relay(
            "The KDC does not let the relay act for this user: allow it as docs/authentication.md says."
        ),
        Reason.KERBEROS_REFUSED: _relay("The KDC gives no ticket: the line `because` and the log of the KDC say why."),
        Reason.KERBEROS_NOT_OFFERED: _relay(
            "The mail server's 401 offers no Negotiate: enable Windows authentication on the path of ActiveSync."
        ),
        Reason.KERBEROS_TICKET: _relay(
            "The mail server refuses tickets: only the account that it runs as may have its service name (setspn -X), "
            'and "Extended Protection" must not be required; the relay asks no user to log in again.',
            Recheck.QUARTER_HOURLY,
        ),
        Reason.HTTP_403: _device(
            "The mail server denies access: ActiveSync is off for the user (Set-CASMailbox -ActiveSyncEnabled $true), "
            "or its access rules block the relay's device."
        ),
        Reason.HTTP_404: _url(
            "Nothing is at this URL: correct servers.NAME.url; for a mailbox that Autodiscover found, what it names."
        ),
        Reason.HTTP_405: _url(
            "The URL does not take ActiveSync requests: correct servers.NAME.url, whose path is usually "
            "/Microsoft-Server-ActiveSync, and let reverse proxies pass OPTIONS and POST."
        ),
        Reason.HTTP_407: _url(
            "A proxy before the mail server wants authentication: let this host through without it, or name in "
            "servers.NAME.url an address that leads past the proxy."
        ),
        Reason.HTTP_440: _url(
            "A publishing gateway before the mail server (TMG, UAG, AD FS web application proxy) answers that a login "
            "in a form has ended: let it pass the path of ActiveSync without a form, or name an inner URL."
        ),
        Reason.HTTP_441: _url(
            "A publishing gateway before the mail server (TMG, UAG, AD FS web application proxy) wants a login in a "
            "form: let it pass the path of ActiveSync without a form, or name an inner URL."
        ),
        Reason.HTTP_451: _elsewhere(
            "Another server has the mailbox, and this one does not name it: set the ExternalUrl of that server's "
            "ActiveSync (Set-ActiveSyncVirtualDirectory), or let servers.NAME.url lead to that server."
        ),
        Reason.HTTP_456: _blocked(
            "The user's account is blocked: unlock it.", "The user's account is blocked: unlock it.", Recheck.DAILY
        ),
        Reason.HTTP_457: _blocked(
            "The password has expired: change it, then log in with the new one.",
            "The user's password has expired: the user changes it, then enters it in the app.",
            Recheck.DAILY,
            Actor.USER,
        ),
        Reason.HTTP_REDIRECT: _url(
            "The URL redirects elsewhere, and the relay follows no redirect, which could lead a password to another "
            "host: set servers.NAME.url to where ActiveSync is, or correct the reverse proxy that redirects."
        ),
        Reason.EAS_112: _blocked(
            "The mailbox's server may not read the user's account: its administrator must correct that.",
            "The mail server may not read the account in its directory: let the account inherit permissions there, "
            "which accounts of administrators often do not.",
        ),
        Reason.EAS_123: _blocked(
            "The user has no mailbox on the server.",
            "The user has no mailbox on the mail server: make one, or let the right user register.",
            Recheck.DAILY,
        ),
        Reason.EAS_124: _blocked(
            "The mailbox's server sees no credential: its administrator must correct that.",
            "The mail server sees requests without a credential: let reverse proxies pass the header Authorization, "
            "and switch anonymous authentication off on the path of ActiveSync.",
            Recheck.DAILY,
        ),
        Reason.EAS_125: _blocked(
            "The directory of the mailbox's server does not know the user.",
            "The mail server does not find the user in its directory: check the user's logon names there, and what "
            "the app sends as `user`.",
            Recheck.DAILY,
        ),
        Reason.EAS_126: _blocked(
            "ActiveSync is off for the user: switch it on.",
            "ActiveSync is off for the user: Set-CASMailbox -ActiveSyncEnabled $true.",
        ),
        Reason.EAS_127: _elsewhere(
            "The mailbox is on a newer server with another URL: add that server as another [servers.NAME], or let "
            "servers.NAME.url lead to it."
        ),
        Reason.EAS_128: _elsewhere(
            "The mailbox is on an older server with another URL: add that server as another [servers.NAME], or move "
            "the mailbox to the newer one."
        ),
        Reason.EAS_129: _device("The mail server blocks this device of the user.", Recheck.SIX_HOURLY),
        Reason.EAS_130: _device("The mail server denies access to the user or the device: look at its access rules."),
        Reason.EAS_131: _blocked(
            "The user's account is disabled.", "The user's account is disabled: enable it.", Recheck.SIX_HOURLY
        ),
        Reason.EAS_139: _blocked(
            "The policy of the mailbox's server does not let the relay in.",
            "The mail server wants its policy enforced by the device: allow devices that cannot do that, or set "
            "acknowledgement_fallback.",
        ),
        Reason.EAS_145: _blocked(
            "The policy of the mailbox's server does not let the relay in.",
            "The mail server refuses devices that others manage: allow them in its policy, or set "
            "acknowledgement_fallback.",
        ),
        Reason.EAS_151: _blocked(
            "The mailbox has more folders than its server can list: remove some.",
            "The mailbox has more folders than the mail server can list (1,000 by default): the user removes some.",
            Recheck.HOURLY,
            Actor.USER,
        ),
        Reason.EAS_177: _blocked(
            "The user has too many devices at the mailbox's server: remove old ones there.",
            "The user has too many devices: remove old ones on the mail server (Remove-MobileDevice).",
            Recheck.SIX_HOURLY,
        ),
        Reason.POLICY_3: _blocked(
            "The policy of the mailbox's server does not let the relay in.",
            "The mail server does not know the type of policy that every version since 12.0 has: look which server "
            "or gateway answers Provision.",
        ),
        Reason.POLICY_4: _blocked(
            "The policy of the mailbox's server is damaged.",
            "The mail server calls its own ActiveSync policy corrupt: save the policy again, or assign another one.",
        ),
        Reason.REDIRECTED: _server(
            "The mail server sends the mailbox to another one, which the line `because` names: add that one as another "
            "[servers.NAME], or list it in autodiscover.hosts.",
            Recheck.HOURLY,
            Actor.ADMINISTRATOR,
        ),
        Reason.AUTODISCOVER: _url(
            "Autodiscover does not lead to the mailbox; the line `because` says how: correct autodiscover.hosts, or "
            "what your Autodiscover answers.",
            Recheck.BACKOFF,
        ),
        Reason.NOT_PROVISIONED: _server(
            "The mail server asks again and again for its policy to be acknowledged: look at its ActiveSync policy.",
            Recheck.HOURLY,
        ),
        Reason.POLICY_LOOP: _server(
            "The mail server gave three policy keys within an hour and wants another: look at its ActiveSync policy, "
            "and at `acknowledgement`.",
            Recheck.HOURLY,
            Actor.ADMINISTRATOR,
        ),
        Reason.VERSION: _server(
            "Allow a protocol version that the mail server offers: servers.NAME.versions.",
            Recheck.HOURLY,
            Actor.ADMINISTRATOR,
        ),
        Reason.VERSION_REFUSED: _server(
            "The mail server refuses requests of the protocol versions that it offers: take one off "
            "servers.NAME.versions, and check that reverse proxies change nothing in requests.",
            Recheck.HOURLY,
            Actor.ADMINISTRATOR,
        ),
        Reason.HIERARCHY_CHANGED: _server(
            "The mail server says again and again that folders have changed: look at its health."
        ),
        Reason.NO_FOLDER: Row(
            Actor.APP,
            "The mailbox has no folder of the classes that the app asks for: ask for others.",
            "The mailbox has no folder of the classes that the app asks for.",
            Recheck.HOURLY,
        ),
        Reason.STATE_LOST: _server(f"The mail server loses the state of the device: {_KEYS}", Recheck.HOURLY),
        Reason.STALE_KEY: _server(f"The mail server forgets the keys that it gave out: {_KEYS}", Recheck.HOURLY),
        Reason.SERVER_RENEWED: _server(
            "The mail server wants all devices to start over, again and again: look at its health.", Recheck.HOURLY
        ),
        Reason.REQUEST_REFUSED: _server(
            "The mail server calls requests of the relay malformed: report the log line `request refused`, which has "
            "the bytes.",
            Recheck.HOURLY,
            Actor.ADMINISTRATOR,
        ),
        Reason.TOO_MANY_COLLECTIONS: _server(
            "The mail server takes no number of folders in one Sync: look at its limits and its health."
        ),
        Reason.TOO_MANY_FOLDERS: _server(
            "The mail server takes no number of folders in one Ping: look at its limits and its health."
        ),
        Reason.HEARTBEAT: _server(
            "The mail server takes no heartbeat interval, not even the one that it names: look at its limits."
        ),
        Reason.PING_PARAMETERS: _server("The mail server forgets what each Ping asks for: look at its health."),
        Reason.PING_TOO_FAST: Row(
            Actor.ADMINISTRATOR,
            "Another program disturbs the watch of the mailbox: its administrator must look for it.",
            "The mail server ends each Ping at once: look whether another program uses the same device id at this "
            "mailbox.",
            Recheck.BACKOFF,
        ),
        Reason.PERHAPS_QUARANTINED: _device(
            "Look whether the mail server quarantines the relay's device.", Recheck.WHILE_WATCHED
        ),
        Reason.PERHAPS_IN_DISCOVERY: Row(
            Actor.NOBODY,
            "All is well.",
            "Nothing yet: the mail server may still find out what device this is; then its items show.",
            Recheck.WHILE_WATCHED,
        ),
        Reason.REMOTE_WIPE: _WIPED,
        Reason.ACCOUNT_ONLY_WIPE: _WIPED,
        Reason.NOT_ASKED: Row(
            Actor.NOBODY,
            "The mailbox's server has not answered yet; the relay asks it again by itself.",
            "Nothing yet: the mail server has not judged the credential; the relay asks again.",
            Recheck.BACKOFF,
        ),
        Reason.SERVER_UNKNOWN: _relay(
            "relay.toml no longer has the [servers.NAME] of the mailbox: put it back under its old name.",
            Recheck.NEW_START,
        ),
        Reason.HOST_NOT_ALLOWED: _relay(
            "autodiscover.hosts does not list the host where the mailbox was found: list it, or let the app register "
            "again.",
            Recheck.NEW_START,
        ),
        Reason.SEAL_BROKEN: _relay(
            "The stored credential does not open; the line `because` says whether to restore the sealing key or to let "
            "the app register again.",
            Recheck.NEW_KEY,
        ),
        Reason.CREDENTIAL_KIND: _relay(
            "servers.NAME.credentials no longer lists the kind of this credential: put it back, or let the app "
            "register again.",
            Recheck.NEW_START,
        ),
        Reason.MAINTENANCE: Row(
            Actor.NOBODY,
            "The mailbox's server is in maintenance: pushes come again when that is over.",
            "Nothing while it lasts; `relay maintenance NAME off` ends it.",
            Recheck.MAINTAINED,
            Concern.SERVER,
        ),
        Reason.UNKNOWN: Row(
            Actor.ADMINISTRATOR,
            "The relay cannot watch the mailbox: its administrator sees why.",
            "A newer version of the relay gave the reason, which the line `because` names: upgrade this process too.",
            Recheck.AS_NEWER,
        ),
    }
)
"""Reason -> what follows from it; complete."""

STATES: Final[Mapping[WatchState, Row]] = MappingProxyType(
    {
        WatchState.VERIFYING: REASONS[Reason.NOT_ASKED],
        WatchState.STARTING: Row(Actor.NOBODY, "All is well.", "Nothing yet: the watch begins.", Recheck.WHILE_WATCHED),
        WatchState.WATCHING: Row(
            Actor.NOBODY,
            "All is well.",
            "Nothing: the mail server holds a Ping for this mailbox.",
            Recheck.WHILE_WATCHED,
        ),
        WatchState.WAITING: _server("Nothing yet: the relay tries again by itself."),
        WatchState.CREDENTIAL_REFUSED: REASONS[Reason.HTTP_401],
        WatchState.BLOCKED: _blocked(
            "The mailbox's server denies access: its administrator must act.", "The mail server denies access."
        ),
        WatchState.WIPING: Row(
            Actor.NOBODY,
            "An administrator wipes this device: the last push says when it is done.",
            "Nothing: the relay acknowledges a wipe, then removes all that it keeps of the mailbox.",
            Recheck.NEVER,
        ),
        WatchState.WIPED: _WIPED,
        WatchState.PAUSED: Row(
            Actor.ADMINISTRATOR,
            "An administrator of the relay paused this mailbox: no pushes come until it is resumed.",
            "`relay mailboxes resume` lets it go on.",
            Recheck.RESUMED,
        ),
    }
)
"""State -> what follows from it, for a mailbox without a reason."""

_CONFIRMING: Final = Row(
    Actor.NOBODY,
    "The mailbox's server refused the credential; the relay makes sure before it says so.",
    "Nothing yet: the mail server refused the credential; the relay confirms that before it asks the user.",
    Recheck.CONFIRMED,
)


def row_of(state: WatchState, reason: Reason | None) -> Row:
    """Return what follows from a state and its reason.

    A reason that this version does not know is as urgent as its state.
    """
    if reason is None or state is WatchState.WIPING:
        return STATES[state]
    if reason is Reason.UNKNOWN:
        return replace(STATES[state], remedy=REASONS[reason].remedy, recheck=REASONS[reason].recheck)
    if reason is Reason.HTTP_401 and state is WatchState.WAITING:
        return _CONFIRMING
    return REASONS[reason]


def cause_of(state: WatchState, reason: Reason | None) -> Cause | None:
    """Return the word for an `attention` push about a mailbox in a state; None: there is none.

    A refusal in doubt is about the credential too; the push says beside it that it is not certain.
    """
    row = row_of(state, reason)
    if row is _WIPED or state is WatchState.WIPING:
        return Cause.WIPED
    if state is WatchState.CREDENTIAL_REFUSED or row.recheck in {Recheck.NEW_CREDENTIAL, Recheck.IN_DOUBT}:
        return Cause.CREDENTIAL
    return Cause.BLOCKED if state is WatchState.BLOCKED else None


def write_reason(reason: Reason | None) -> str:
    """Return the text that the database keeps; empty for no reason."""
    return "" if reason is None else reason.value


def read_reason(text: str) -> Reason | None:
    """Return the reason that a stored text stands for, None for an empty one.

    A text that this version does not know, since a newer version wrote it, is read as UNKNOWN.
    """
    if not text:
        return None
    try:
        return Reason(text)
    except ValueError:
        return Reason.UNKNOWN


def read_detail(text: str, detail: str) -> str:
    """Return the stored detail of a reason; for an unknown one it begins with the text of the reason."""
    if read_reason(text) is not Reason.UNKNOWN:
        return detail
    unknown = f"{text}, a reason that this version of the relay does not know"
    return f"{unknown}: {detail}" if detail else unknown
