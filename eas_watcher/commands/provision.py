"""Provision: how a client gets the policy key that other commands need, and acknowledges a wipe [MS-ASPROV].

Both conversations are flows, because their requests make sense only in order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Final

from eas_watcher.commands.device import DEVICE, DeviceInformation
from eas_watcher.commands.flow import Flow, ask
from eas_watcher.commands.reading import is_empty, read_identifier, read_number, read_root
from eas_watcher.commands.request import Command, HttpReply
from eas_watcher.commands.status import OK, raise_for_status
from eas_watcher.errors import (
    AccessDenied,
    NotProvisioned,
    ProtocolViolation,
    RemoteWipeRequested,
    RequestRefused,
    ServerBusy,
)
from eas_watcher.names import NO_POLICY_KEY, PolicyKey, ProtocolVersion
from eas_watcher.reasons import Reason
from eas_watcher.wbxml.element import PROVISION, Element
from eas_watcher.wbxml.encode import encode

POLICY_TYPE: Final = "MS-EAS-Provisioning-WBXML"  # in every version from 12.0 on [MS-ASPROV 2.2.2.43]
POLICY_KEY_LENGTH: Final = 64  # characters [MS-ASPROV 2.2.2.42]

# Provision/Status [MS-ASPROV 2.2.2.54.2]
MALFORMED: Final = 2
SERVER_ERROR: Final = 3
NOT_ACCEPTED: Final = frozenset({Reason.EAS_139, Reason.EAS_145})  # another acknowledgement may be accepted


class Acknowledgement(IntEnum):
    """What a client reports about the server's policy [MS-ASPROV 2.2.2.54.1]."""

    APPLIED = 1
    PARTIAL = 2
    NOT_APPLIED = 3
    THIRD_PARTY = 4


@dataclass(frozen=True, slots=True)
class ProvisionReply:
    """The status of the server's policy, or a request for a wipe."""

    policy_key: PolicyKey | None = None
    policy_status: int = OK
    remote_wipe: bool = False
    account_only_wipe: bool = False


@dataclass(frozen=True, slots=True)
class Provision(Command[ProvisionReply]):
    """Ask for the policy, or acknowledge it with the temporary key that came with it."""

    name: ClassVar[str] = "Provision"
    policy_key: PolicyKey = NO_POLICY_KEY
    device: DeviceInformation | None = None
    """Needed in the first request from 14.1 on, refused by older versions [MS-ASPROV 2.2.2.54]."""
    acknowledge: Acknowledgement | None = None

    def encode(self, version: ProtocolVersion) -> bytes:  # noqa: ARG002 -- the flow chooses the elements by version
        """Write the type of the policy; also device, key and acknowledgement if given."""
        policy = [PROVISION("PolicyType", POLICY_TYPE)]
        if self.acknowledge is not None:
            # In this order: some servers insist [observed: Z-Push 2.7.1, 2026-11].
            policy += [PROVISION("PolicyKey", self.policy_key), PROVISION("Status", str(self.acknowledge.value))]
        policies = PROVISION("Policies", PROVISION("Policy", *policy))
        if self.device is None:
            return encode(PROVISION("Provision", policies))
        return encode(PROVISION("Provision", self.device.element(), policies))

    def read(self, reply: HttpReply) -> ProvisionReply:
        """Read key and status of the policy, or a request for a wipe; the policy itself is not read."""
        return _read(reply)


@dataclass(frozen=True, slots=True)
class WipeInquiry(Command[ProvisionReply]):
    """Ask which wipe the server wants, with an empty Provision [MS-ASPROV 3.1.5.1.2]."""

    name: ClassVar[str] = "Provision"
    policy_key: PolicyKey = NO_POLICY_KEY

    def encode(self, version: ProtocolVersion) -> bytes:  # noqa: ARG002 -- alike in all versions
        """Write an empty Provision."""
        return encode(PROVISION("Provision"))

    def read(self, reply: HttpReply) -> ProvisionReply:
        """Read which wipe the server wants."""
        return _read(reply)


@dataclass(frozen=True, slots=True)
class WipeAcknowledgement(Command[None]):
    """Acknowledge that the wipe is done [MS-ASPROV 3.1.5.1.2]."""

    name: ClassVar[str] = "Provision"
    account_only: bool
    policy_key: PolicyKey = NO_POLICY_KEY

    def encode(self, version: ProtocolVersion) -> bytes:  # noqa: ARG002 -- alike in all versions
        """Write success for the requested kind of wipe."""
        tag = "AccountOnlyRemoteWipe" if self.account_only else "RemoteWipe"
        return encode(PROVISION("Provision", PROVISION(tag, PROVISION("Status", str(OK)))))

    def read(self, reply: HttpReply) -> None:
        """Accept any answer with HTTP 200: some servers request the wipe again [observed: Exchange 2010]."""
        is_empty(reply)


def provision(version: ProtocolVersion, acknowledgement: Acknowledgement) -> Flow[PolicyKey | None]:
    """Return a policy key that other commands may use; None when the server has no policy for us.

    Takes two requests [MS-ASPROV 3.1.5.1.1]. The first answer has a temporary key, which is valid only for the second
    request, the acknowledgement; its answer has the final key. Without a policy there is nothing to acknowledge.

    Raises RemoteWipeRequested, NotProvisioned when the key is no longer valid, and AccessDenied for an acknowledgement
    that the server does not accept ("eas-139", "eas-145").
    """
    temporary = _granted((yield from _fetch(version)))
    if temporary is None:
        return None
    return _granted((yield from ask(Provision(temporary, acknowledge=acknowledgement))))


@dataclass(frozen=True, slots=True)
class Grant:
    """A final policy key and the acknowledgement that led to it; both None: there is no policy."""

    policy_key: PolicyKey | None
    acknowledged: Acknowledgement | None


def negotiate(
    version: ProtocolVersion, acknowledgement: Acknowledgement, fallbacks: Sequence[Acknowledgement] = ()
) -> Flow[Grant]:
    """Provision with the first acknowledgement that the server accepts, and return it with the key.

    Each try is a conversation of its own, because a temporary key can be used once. Raises what `provision` raises;
    when the server accepts no acknowledgement, AccessDenied names all that were tried.
    """
    tried = [acknowledgement]
    for fallback in (*fallbacks, None):
        try:
            policy_key = yield from provision(version, tried[-1])
        except AccessDenied as error:
            if error.reason not in NOT_ACCEPTED:
                raise
            if fallback is None:
                said = " nor ".join(str(each.value) for each in tried)
                raise AccessDenied(f"{error} (it does not take acknowledgement {said})", error.reason) from error
            tried.append(fallback)
        else:
            return Grant(policy_key, None if policy_key is None else tried[-1])
    raise AssertionError("the last turn returns or raises")  # pragma: no cover -- for the type checker


def _fetch(version: ProtocolVersion) -> Flow[ProvisionReply]:
    """Ask for the policy, with our device information or without; the other way if the server refuses that.

    From 14.1 on servers should require it, and older versions refuse it [MS-ASPROV 2.2.2.54].
    """
    described = version >= ProtocolVersion.V14_1
    try:
        return (yield from ask(Provision(device=DEVICE if described else None)))
    except RequestRefused:
        return (yield from ask(Provision(device=None if described else DEVICE)))
    except NotProvisioned:
        if described:
            raise
        return (yield from ask(Provision(device=DEVICE)))


def acknowledge_wipe(account_only: bool) -> Flow[None]:
    """Acknowledge that the data is destroyed, in two requests [MS-ASPROV 3.1.5.1.2].

    The first answer says again what must be wiped; if it differs from `account_only`, it decides.
    """
    requested = yield from ask(WipeInquiry())
    if requested.remote_wipe or requested.account_only_wipe:
        account_only = not requested.remote_wipe
    yield from ask(WipeAcknowledgement(account_only))


def _granted(reply: ProvisionReply) -> PolicyKey | None:
    """Return the key of an answer, None when there is no policy; raise for every other status of the policy.

    The server's status of a policy [MS-ASPROV 2.2.2.54.3] uses other numbers than an acknowledgement.
    """
    if reply.remote_wipe or reply.account_only_wipe:
        raise RemoteWipeRequested("the server asks for a wipe", account_only=not reply.remote_wipe)
    match reply.policy_status:
        case 1 if reply.policy_key is not None:
            return reply.policy_key
        case 2:  # no policy
            return None
        case 3:
            raise AccessDenied("the server does not know our type of policy (policy status 3)", Reason.POLICY_3)
        case 4:
            raise AccessDenied("the server's policy is corrupt (policy status 4)", Reason.POLICY_4)
        case 5:
            raise NotProvisioned("the server says that another policy key is due (policy status 5)")
        case status:
            raise ProtocolViolation(f"the server grants no policy key (policy status {status})")


def _read(reply: HttpReply) -> ProvisionReply:
    """Read an answer; its own Status may be missing [observed: Tencent Exmail]."""
    root = read_root(reply, "Provision", "Provision")
    remote_wipe = root.find("RemoteWipe") is not None
    account_only_wipe = root.find("AccountOnlyRemoteWipe") is not None
    if remote_wipe or account_only_wipe:
        return ProvisionReply(remote_wipe=remote_wipe, account_only_wipe=account_only_wipe)
    _raise_for(read_number(root, "Status"))
    policies = root.find("Policies")
    policy = None if policies is None else policies.find("Policy")
    if policy is None:
        return ProvisionReply()
    status = read_number(policy, "Status")
    return ProvisionReply(_read_key(policy), OK if status is None else status)


def _raise_for(status: int | None) -> None:
    if status is None:
        return
    if status == MALFORMED:
        raise RequestRefused("the server calls our request malformed (Provision status 2)")
    if status == SERVER_ERROR:
        raise ServerBusy("the server has an error (Provision status 3)")
    raise_for_status("Provision", status)


def _read_key(policy: Element) -> PolicyKey | None:
    """Read a policy key; it is opaque, but is sent in a header, so it must be printable ASCII without spaces."""
    key = read_identifier(policy, "PolicyKey")
    if key is None:
        return None
    if len(key) > POLICY_KEY_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
        raise ProtocolViolation("the policy key cannot be sent in a header")
    return PolicyKey(key)
