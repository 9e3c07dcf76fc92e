"""Own what can go wrong between the relay and an EAS server: one class per remedy, not per cause.

EasError
├── Unreachable          no whole answer arrived: back off, Sync with the stored key, then Ping
├── ServerBusy           the server asks to wait or has trouble of its own: wait as told, else back off
├── Unauthorized         the credential was refused: stop the mailbox, confirm sparingly
├── CredentialVoid       the credential is certainly of no use any more: stop the mailbox, tell its user
├── AccessDenied         account, device or path is not allowed to sync: re-check hourly, tell the operator
├── NotProvisioned       acknowledge the policy, repeat
├── RemoteWipeRequested  acknowledge, destroy the account's data
├── VersionRefused       ask OPTIONS again, choose another version
├── StateLost            every key of the device is void: FolderSync from 0, prime again
├── ServerRenewed        the server was changed: OPTIONS, then as after StateLost
├── RequestRefused       the server calls our request wrong: once as after StateLost, then hourly
├── TooManyCollections   ask for fewer at a time
├── HierarchyChanged     FolderSync with the stored key, repeat
├── Redirected           the mailbox is better served at another URL
└── ProtocolViolation    an answer that no reading makes sense of: log, back off
"""

from eas_watcher.reasons import Reason


class EasError(Exception):
    """Cover everything that a watch has a remedy for."""


class Unreachable(EasError):
    """Tell that no whole answer arrived; what the server did is unknown.

    `survived` is how many seconds the request was held before the connection was lost, `reached` whether the server
    may have seen it (a refused connection is certain not to). `stale` says that it went over a connection that was kept
    from an earlier request and that closed at once without a byte: most likely the server had closed it already.
    """

    def __init__(self, detail: str, survived: float = 0.0, reached: bool = True, stale: bool = False) -> None:
        super().__init__(detail)
        self.survived = survived
        self.reached = reached
        self.stale = stale


class ServerBusy(EasError):
    """Tell that the server cannot serve now.

    `retry_after` is in seconds when the server named a time; `reached` is False when the request was turned away
    before anything looked into it (503, 429). `suspect` says that the key of the hierarchy may be at fault, if it comes
    again and again; `shared` that it may be the trouble of all mailboxes (503, 502, 504), not the throttling of one.
    `again` that it asks for a repetition at once.
    """

    def __init__(
        self,
        detail: str,
        retry_after: float | None = None,
        reached: bool = True,
        suspect: bool = False,
        shared: bool = False,
        again: bool = False,
    ) -> None:
        super().__init__(detail)
        self.retry_after = retry_after
        self.reached = reached
        self.suspect = suspect
        self.shared = shared
        self.again = again


class Unauthorized(EasError):
    """Tell that the server refused the credential (HTTP 401); `shared`: as it does with many others at this time."""

    def __init__(self, detail: str, shared: bool = False) -> None:
        super().__init__(detail)
        self.shared = shared


class CredentialVoid(EasError):
    """Tell that the credential is expired or withdrawn for certain; `reason` says how."""

    def __init__(self, detail: str, reason: Reason) -> None:
        super().__init__(detail)
        self.reason = reason


class AccessDenied(EasError):
    """Tell that the account, the device or the URL may not sync; `reason` says what refused it."""

    def __init__(self, detail: str, reason: Reason) -> None:
        super().__init__(detail)
        self.reason = reason


class NotProvisioned(EasError):
    """Tell that the server wants the policy acknowledged first."""


class RemoteWipeRequested(EasError):
    """Tell that an administrator or the user wants this device's data gone."""

    def __init__(self, detail: str, account_only: bool = False) -> None:
        super().__init__(detail)
        self.account_only = account_only


class VersionRefused(EasError):
    """Tell that the server does not speak the chosen protocol version or command form."""


class StateLost(EasError):
    """Tell that the server forgot the device's sync state."""


class ServerRenewed(EasError):
    """Tell that what the server offers has changed, and that it wants all clients to start over."""


class RequestRefused(EasError):
    """Tell that the server calls a request of ours malformed; to repeat it unchanged is useless."""


class TooManyCollections(EasError):
    """Tell that one Sync named too many collections; `limit` is None when the server does not say how many it takes."""

    def __init__(self, detail: str, limit: int | None) -> None:
        super().__init__(detail)
        self.limit = limit


class HierarchyChanged(EasError):
    """Tell that folders came, went or moved."""


class Redirected(EasError):
    """Tell that the server names another URL for this mailbox."""

    def __init__(self, location: str, detail: str = "the server names another URL for this mailbox") -> None:
        super().__init__(detail)
        self.location = location


class ProtocolViolation(EasError):
    """Tell that an answer broke the protocol; the text never quotes content of the answer."""
