"""Provision of the simulated server: grants policy keys and demands wipes [MS-ASPROV 3.2.5.1]."""

from typing import Final

from eas_watcher.names import NO_POLICY_KEY, ProtocolVersion
from eas_watcher.wbxml.element import PROVISION, SETTINGS, Element
from relay.sandbox.eas.hierarchy import read_device
from relay.sandbox.eas.refusals import (
    DEVICE_BLOCKED,
    DEVICE_INFORMATION_REQUIRED,
    INVALID_POLICY_KEY,
    NOT_PROVISIONED,
    POLICY_REFRESH,
    WIPE_REQUESTED,
    MalformedRequest,
    RefusedByStatus,
    check_children,
    status_document,
)
from relay.sandbox.eas.rules import Session

POLICY_TYPE: Final = "MS-EAS-Provisioning-WBXML"
WIPES: Final = ("RemoteWipe", "AccountOnlyRemoteWipe")

# Policy/Status of the server [MS-ASPROV 2.2.2.54.3]
GRANTED, NO_POLICY, UNKNOWN_TYPE, WRONG_KEY = 1, 2, 3, 5
REFUSING: Final = {2: 139, 3: 139, 4: 145}
"""Policy/Status of the client [MS-ASPROV 2.2.2.54.1] -> the common status that refuses it."""


def check_access(session: Session) -> None:
    """Raise RefusedByStatus unless the device may use a command other than Provision and Ping.

    A Ping needs no policy key [MS-ASHTTP 2.2.1.1.2.6].
    """
    device = session.device
    if device.blocked:
        raise RefusedByStatus(DEVICE_BLOCKED, "the device is blocked", fault=False)
    if device.wipe is not None:
        raise RefusedByStatus(WIPE_REQUESTED, "a wipe is due", fault=False)
    if not session.rules.policy:
        return
    personality = session.rules.personality
    if personality.serves_keyless and device.policy_key is None and session.policy_key is None:
        return
    if device.policy_key is None or session.policy_key in {None, NO_POLICY_KEY}:
        # A device that has a key and does not send it is at fault; one without a key is not.
        raise RefusedByStatus(NOT_PROVISIONED, "no policy key was sent", fault=device.policy_key is not None)
    if session.policy_key != device.policy_key:
        raise RefusedByStatus(INVALID_POLICY_KEY, "a policy key that is not the device's")
    if device.refresh_due:
        raise RefusedByStatus(POLICY_REFRESH, "the policy is due for a refresh", fault=False)


def policy_due(session: Session) -> bool:
    """Return whether the server demands an acknowledgement of the policy, or a wipe."""
    device = session.device
    return device.refresh_due or device.wipe is not None


def answer_provision(root: Element, session: Session) -> Element:
    """Return the answer to Provision: the policy with a temporary key, the final key, or the demand for a wipe."""
    device = session.device
    if device.blocked:
        raise RefusedByStatus(DEVICE_BLOCKED, "the device is blocked", fault=False)
    if device.wipe is not None:
        return _wipe(root, session, device.wipe)
    information = root.find("DeviceInformation", "Settings")
    expected = [information] if information is not None else []
    policies = root.find("Policies")
    if policies is None or list(root.children) != [*expected, policies]:
        raise MalformedRequest("Provision is DeviceInformation, then Policies")
    check_children(policies, ("Policy",))
    policy = policies.find("Policy")
    if policy is None:
        raise MalformedRequest("Provision without a Policy")
    check_children(policy, ("PolicyType", "PolicyKey", "Status"))
    kind, key, status = policy.find("PolicyType"), policy.find("PolicyKey"), policy.find("Status")
    if kind is None or (key is None) != (status is None):
        raise MalformedRequest("a Policy is PolicyType, or PolicyType, PolicyKey and Status")
    if kind.string != POLICY_TYPE:
        return _write(UNKNOWN_TYPE, (), PROVISION("PolicyType", kind.string))
    if key is not None and status is not None:
        if information is not None:
            raise MalformedRequest("DeviceInformation belongs to the first Provision")
        return _grant(key.string, status.string, session)
    return _offer(information, session)


def _offer(information: Element | None, session: Session) -> Element:
    """Return the policy with a temporary key, or policy status 2 if the server has no policy."""
    device = session.device
    informed: tuple[Element, ...] = ()
    if session.version >= ProtocolVersion.V14_1:
        if information is None:
            raise RefusedByStatus(DEVICE_INFORMATION_REQUIRED, "Provision without DeviceInformation")
        read_device(information)
        device.informed = True
        informed = (SETTINGS("DeviceInformation", SETTINGS("Status", "1")),)
    elif information is not None:
        raise MalformedRequest("before 14.1 DeviceInformation goes with Settings")
    if not session.rules.policy:
        return _write(NO_POLICY, informed)
    device.temporary_key = session.mint.policy_key()
    document = PROVISION(
        "EASProvisionDoc", PROVISION("DevicePasswordEnabled", "0"), PROVISION("AttachmentsEnabled", "1")
    )
    key = PROVISION("PolicyKey", device.temporary_key)
    return _write(GRANTED, informed, key, PROVISION("Data", document))


def _grant(key: str, status: str, session: Session) -> Element:
    """Return the final key for an acknowledgement, which needs the temporary key in header and body."""
    device = session.device
    if not session.rules.policy:
        return _write(NO_POLICY, ())
    if device.temporary_key is None or key != device.temporary_key or session.policy_key != key:
        session.complain("the policy was acknowledged with another key than the temporary one")
        return _write(WRONG_KEY, ())
    if status not in map(str, range(1, 5)):
        raise MalformedRequest("an acknowledgement that does not exist")
    if int(status) not in session.rules.acknowledgements:
        raise RefusedByStatus(REFUSING.get(int(status), 139), f"acknowledgement {status} is not accepted", fault=False)
    device.temporary_key, device.policy_key, device.refresh_due = None, session.mint.policy_key(), False
    return _write(GRANTED, (), PROVISION("PolicyKey", device.policy_key))


def _wipe(root: Element, session: Session, tag: str) -> Element:
    """Demand the wipe `tag`; block the device when it acknowledges the wipe [MS-ASPROV 3.1.5.1.2]."""
    for acknowledgement in (child for wipe in WIPES for child in root.all(wipe)):
        status = acknowledgement.find("Status")
        if status is None or status.string not in {"1", "2"}:
            raise MalformedRequest("the acknowledgement of a wipe has a Status of 1 or 2")
        if acknowledgement.tag != tag:
            session.complain(f"{acknowledgement.tag} was acknowledged, {tag} was asked for")
        session.device.wipe, session.device.blocked = None, True
        return status_document("Provision", 1)
    return status_document("Provision", 1, PROVISION(tag))


def _write(status: int, informed: tuple[Element, ...], *more: Element) -> Element:
    """Return an answer with DeviceInformation, Status and the policy: its type, its status, then `more`."""
    kind = [part for part in more if part.tag == "PolicyType"] or [PROVISION("PolicyType", POLICY_TYPE)]
    rest = [part for part in more if part.tag != "PolicyType"]
    policy = PROVISION("Policy", *kind, PROVISION("Status", str(status)), *rest)
    return PROVISION("Provision", *informed, PROVISION("Status", "1"), PROVISION("Policies", policy))
