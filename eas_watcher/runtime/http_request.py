"""How commands and questions to Autodiscover become HTTP requests: URL, headers, body and deadline."""

from re import compile as pattern
from typing import Any, Final
from urllib.parse import quote

from eas_watcher.autodiscover.search import Lookup
from eas_watcher.commands.ping import Ping
from eas_watcher.commands.request import Command, HttpRequest
from eas_watcher.heartbeat import deadline
from eas_watcher.names import DEVICE_TYPE, USER_AGENT, PolicyKey, ProtocolVersion
from eas_watcher.runtime.account import Account

CONTENT_TYPE: Final = "application/vnd.ms-sync.wbxml"
PATIENCE: Final = 120.0  # seconds; the first Sync of a large folder takes that long on some servers
_PLAIN: Final = pattern(r"[A-Za-z0-9_.~@-]*")
LOOKUP_PATIENCE: Final = 30.0  # seconds; a user who registers waits for the answer of Autodiscover


def compose(
    account: Account,
    command: Command[Any],
    version: ProtocolVersion | None,
    policy_key: PolicyKey | None,
    cookie: str = "",
    url: str = "",
) -> HttpRequest:
    """Return one request in the plain query form, the only one that all servers read alike.

    `version` may be None for OPTIONS alone. `url` is where the mailbox is, if not at the account's URL.
    """
    url = url or account.url
    authorization = account.credential.authorization()
    headers = {"User-Agent": USER_AGENT}
    if authorization is not None:
        headers["Authorization"] = authorization
    if cookie:
        headers["Cookie"] = cookie
    if version is None or not command.name:
        return HttpRequest("OPTIONS", url, headers, b"", PATIENCE)
    body = command.encode(version)
    headers["MS-ASProtocolVersion"] = version.wire
    if body:
        # A Content-Type without a body is refused with 400 by Exchange [MS-ASHTTP 2.2.1.1.2.2].
        headers["Content-Type"] = CONTENT_TYPE
    key = command.policy_key or policy_key
    if key is not None and command.carries_policy_key:
        headers["X-MS-PolicyKey"] = key
    # The name of a command, a device id and our device type have no character that must be quoted.
    query = f"Cmd={command.name}&User={_quoted(account.user)}&DeviceId={account.device_id}&DeviceType={DEVICE_TYPE}"
    patience = deadline(command.heartbeat) if isinstance(command, Ping) else PATIENCE
    return HttpRequest("POST", f"{url}?{query}", headers, body, patience, command.largest)


def _quoted(user: str) -> str:
    """Return a user as a query has it; most are addresses, in which only the @ must be quoted."""
    return user.replace("@", "%40") if _PLAIN.fullmatch(user) else quote(user, safe="")


def compose_lookup(lookup: Lookup, account: Account) -> HttpRequest:
    """Return the request that asks Autodiscover one question; the credential goes with it if the question needs it."""
    headers = {"User-Agent": USER_AGENT}
    authorization = account.credential.authorization() if lookup.credential else None
    if authorization is not None:
        headers["Authorization"] = authorization
    if lookup.body:
        headers["Content-Type"] = "text/xml; charset=utf-8"
    return HttpRequest(lookup.method, lookup.url, headers, lookup.body, LOOKUP_PATIENCE)
