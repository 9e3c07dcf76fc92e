"""What can go wrong between the relay and an EAS server: one class per remedy, not per cause.

EasError
├── Unreachable          no whole answer arrived: back off, Sync with the stored key, then Ping
├── ServerBusy           the server cannot serve now: wait as long as it asks, else back off
├── Unauthorized         the credential was refused: wait, confirm it twice, then end the watch or doubt the server
├── Withheld             the credential, refused before, may not be shown now: wait as long as it says
├── CredentialVoid       the credential has certainly ended: end the watch, alert its user
├── AccessDenied         the account, device or URL may not sync: check again hourly, inform the operator
├── NotProvisioned       acknowledge the policy, repeat
├── RemoteWipeRequested  acknowledge it, destroy the mailbox's data
├── VersionRefused       ask OPTIONS again, choose another version
├── StateLost            no key of the device is valid: FolderSync from 0, prime again
├── ServerRenewed        the server was changed: OPTIONS, then as after StateLost
├── RequestRefused       the server calls our request malformed: once as after StateLost, then hourly
├── TooManyCollections   ask for fewer at a time
├── HierarchyChanged     FolderSync with the stored key, repeat
├── Redirected           the mailbox is at another URL: go on there
└── ProtocolViolation    the answer cannot be understood: back off
"""

from eas_watcher.reasons import Reason


class EasError(Exception):
    """Any failure for which a watch has a remedy."""

    elsewhere: bool = False
    """True if it came from what gives the login, e.g. a token endpoint: the mail server was not asked."""


class Unreachable(EasError):
    """No whole answer arrived; it is unknown what the server did.

    `survived`: how many seconds the request was held before the connection was lost. `reached`: False if the server
    certainly did not get the request, as with a refused connection. `stale`: the connection was kept from an earlier
    request and closed at once without a byte, so the server had most likely closed it before. `connection`: the number
    of a connection that carries many requests and was the cause, so that all its requests fail at once; 0: none was.
    `reason`: another one than UNREACHABLE if a proxy on the way is at fault.
    """

    def __init__(
        self,
        detail: str,
        survived: float = 0.0,
        reached: bool = True,
        stale: bool = False,
        connection: int = 0,
        reason: Reason = Reason.UNREACHABLE,
    ) -> None:
        super().__init__(detail)
        self.survived = survived
        self.reached = reached
        self.stale = stale
        self.connection = connection
        self.reason = reason


class ServerBusy(EasError):
    """The server cannot serve now.

    `retry_after`: seconds, if the server named a time. `reached`: False if the server did not process the request (503,
    429). `suspect`: the hierarchy key may be the cause, if the failure repeats. `shared`: it may concern all mailboxes
    (503, 502, 504), and is not the throttling of one. `again`: the server asks for a repetition at once. `full`: Pings
    occupied all workers of the server.
    """

    def __init__(
        self,
        detail: str,
        retry_after: float | None = None,
        reached: bool = True,
        suspect: bool = False,
        shared: bool = False,
        again: bool = False,
        full: bool = False,
    ) -> None:
        super().__init__(detail)
        self.retry_after = retry_after
        self.reached = reached
        self.suspect = suspect
        self.shared = shared
        self.again = again
        self.full = full


class Unauthorized(EasError):
    """The server refused the credential (HTTP 401).

    `shared`: it refuses those of many mailboxes at this time. `others_accepted`: it accepted another mailbox since it
    last refused this one.
    """

    def __init__(self, detail: str, shared: bool = False, others_accepted: bool = False) -> None:
        super().__init__(detail)
        self.shared = shared
        self.others_accepted = others_accepted


class Withheld(EasError):
    """A credential that was refused is not shown again yet: one more refusal could lock its user out.

    `seconds`: how long it must wait.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__("so many credentials of this account were refused that one more could lock its user out")
        self.seconds = seconds


class CredentialVoid(EasError):
    """The credential has certainly expired or was withdrawn; `reason` says which."""

    def __init__(self, detail: str, reason: Reason) -> None:
        super().__init__(detail)
        self.reason = reason


class AccessDenied(EasError):
    """The account, the device or the URL may not sync; `reason` says which."""

    def __init__(self, detail: str, reason: Reason) -> None:
        super().__init__(detail)
        self.reason = reason


class NotProvisioned(EasError):
    """The server wants its policy acknowledged first."""


class RemoteWipeRequested(EasError):
    """An administrator or the user requests that this device destroys its data."""

    def __init__(self, detail: str, account_only: bool = False) -> None:
        super().__init__(detail)
        self.account_only = account_only


class VersionRefused(EasError):
    """The server does not support the chosen protocol version or the form of the command."""


class StateLost(EasError):
    """The server lost the device's sync state."""


class ServerRenewed(EasError):
    """The server says that its offer has changed and that all clients must start over."""


class RequestRefused(EasError):
    """The server calls a request of ours malformed; repeating it unchanged is useless."""


class TooManyCollections(EasError):
    """One Sync named too many collections; `limit` is the most that the server takes, None if it does not say."""

    def __init__(self, detail: str, limit: int | None) -> None:
        super().__init__(detail)
        self.limit = limit


class HierarchyChanged(EasError):
    """Folders were added, removed or moved."""


class Redirected(EasError):
    """The server names another URL for this mailbox."""

    def __init__(self, location: str, detail: str = "the server names another URL for this mailbox") -> None:
        super().__init__(detail)
        self.location = location


class ProtocolViolation(EasError):
    """An answer violates the protocol; the text never quotes the answer."""


def in_doubt(error: EasError) -> bool:
    """Return True if the server may have refused a credential in an answer that was lost on the way.

    Any other answer than 401 shows that the server took the credential, or did not look at it.
    """
    match error:
        case Unreachable(reached=reached):
            return reached
        case ServerBusy(shared=shared, reached=reached):
            return shared and reached  # a gateway's: the server behind it may have answered
        case _:
            return False
