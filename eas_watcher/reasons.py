"""The reasons: stable codes that say why a mailbox is not watched, or what looks odd about one that is."""

from enum import StrEnum


class Reason(StrEnum):
    """The code beside the state of a mailbox; the values stay the same for ever.

    They are stored, shown by the API, counted by the metrics, and searched for by operators. The program around the
    watches gives some of them itself, e.g. when a mailbox's server is no longer configured; they are here too, so that
    there is one type.
    """

    # The server cannot be reached, cannot serve now, or answers what makes no sense.
    UNREACHABLE = "unreachable"
    SERVER_BUSY = "server-busy"
    PROTOCOL_VIOLATION = "protocol-violation"
    FAILED = "failed"

    # A proxy on the way to the server.
    PROXY_AWAY = "proxy-away"
    PROXY_REFUSES = "proxy-refuses"

    # The server refuses the credential; the user, or what issued the credential, must act.
    HTTP_401 = "http-401"
    HTTP_401_MANY = "http-401-many"
    HTTP_401_DOUBTFUL = "http-401-doubtful"
    CREDENTIAL_UNUSABLE = "credential-unusable"
    CERTIFICATE_EXPIRED = "certificate-expired"
    OAUTH_INVALID_GRANT = "oauth-invalid_grant"
    OAUTH_INTERACTION_REQUIRED = "oauth-interaction_required"
    OAUTH_LOGIN_REQUIRED = "oauth-login_required"
    OAUTH_CONSENT_REQUIRED = "oauth-consent_required"
    KERBEROS_USER_UNKNOWN = "kerberos-user-unknown"
    KERBEROS_USER_LOCKED = "kerberos-user-locked"

    # The relay itself may not ask for the login of any user.
    OAUTH_CLIENT = "oauth-client"
    OAUTH_AUDIENCE = "oauth-audience"
    KERBEROS_KEYTAB = "kerberos-keytab"
    KERBEROS_CLOCK = "kerberos-clock"
    KERBEROS_TARGET = "kerberos-target"
    KERBEROS_DELEGATION = "kerberos-delegation"
    KERBEROS_REFUSED = "kerberos-refused"
    KERBEROS_NOT_OFFERED = "kerberos-not-offered"
    KERBEROS_TICKET = "kerberos-ticket"

    # HTTP statuses that deny access [MS-ASHTTP 2.2.2.1.1].
    HTTP_403 = "http-403"
    HTTP_404 = "http-404"
    HTTP_405 = "http-405"
    HTTP_407 = "http-407"
    HTTP_440 = "http-440"
    HTTP_441 = "http-441"
    HTTP_451 = "http-451"
    HTTP_456 = "http-456"
    HTTP_457 = "http-457"
    HTTP_REDIRECT = "http-redirect"

    # Statuses common to all commands that deny access [MS-ASCMD 2.2.2].
    EAS_112 = "eas-112"
    EAS_123 = "eas-123"
    EAS_124 = "eas-124"
    EAS_125 = "eas-125"
    EAS_126 = "eas-126"
    EAS_127 = "eas-127"
    EAS_128 = "eas-128"
    EAS_129 = "eas-129"
    EAS_130 = "eas-130"
    EAS_131 = "eas-131"
    EAS_139 = "eas-139"
    EAS_145 = "eas-145"
    EAS_151 = "eas-151"
    EAS_177 = "eas-177"

    # Statuses of a policy that deny access [MS-ASPROV 2.2.2.54.3].
    POLICY_3 = "policy-3"
    POLICY_4 = "policy-4"

    # The mailbox is elsewhere.
    REDIRECTED = "redirected"
    AUTODISCOVER = "autodiscover"

    # Remedies that did not help at once.
    NOT_PROVISIONED = "not-provisioned"
    POLICY_LOOP = "policy-loop"
    VERSION = "version"
    VERSION_REFUSED = "version-refused"
    HIERARCHY_CHANGED = "hierarchy-changed"
    NO_FOLDER = "no-folder"
    STATE_LOST = "state-lost"
    STALE_KEY = "stale-key"
    SERVER_RENEWED = "server-renewed"
    REQUEST_REFUSED = "request-refused"
    TOO_MANY_COLLECTIONS = "too-many-collections"
    TOO_MANY_FOLDERS = "too-many-folders"
    HEARTBEAT = "heartbeat"
    PING_PARAMETERS = "ping-parameters"
    PING_TOO_FAST = "ping-too-fast"

    # Hints about a mailbox that is watched.
    PERHAPS_QUARANTINED = "perhaps-quarantined"
    PERHAPS_IN_DISCOVERY = "perhaps-in-discovery"

    # Wipes.
    REMOTE_WIPE = "remote-wipe"
    ACCOUNT_ONLY_WIPE = "account-only-wipe"

    # Given by the program around the watches.
    NOT_ASKED = "not-asked"
    SERVER_UNKNOWN = "server-unknown"
    HOST_NOT_ALLOWED = "host-not-allowed"
    SEAL_BROKEN = "seal-broken"
    CREDENTIAL_KIND = "credential-kind"
    MAINTENANCE = "maintenance"

    UNKNOWN = "unknown-reason"
    """A code in the database that this version does not know; never written."""
