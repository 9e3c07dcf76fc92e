import pytest

from eas_watcher.commands.device import DEVICE, DeviceInformation
from eas_watcher.commands.provision import (
    Acknowledgement,
    Grant,
    Provision,
    ProvisionReply,
    WipeAcknowledgement,
    WipeInquiry,
    acknowledge_wipe,
    negotiate,
    provision,
)
from eas_watcher.commands.request import HttpReply
from eas_watcher.errors import (
    AccessDenied,
    EasError,
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
from tests.unit.eas_watcher.play import play
from tests.unit.eas_watcher.wbxml.vectors import body_of

TEMPORARY, FINAL = PolicyKey("1307199584"), PolicyKey("3942919513")
V14_0, V14_1, V16_1 = ProtocolVersion.V14_0, ProtocolVersion.V14_1, ProtocolVersion.V16_1
THIRD_PARTY = Acknowledgement.THIRD_PARTY


def read(body: bytes) -> ProvisionReply:
    return Provision().read(HttpReply(200, {}, body))


def answer(*content: Element) -> ProvisionReply:
    return read(encode(PROVISION("Provision", *content)))


def policy(*content: Element) -> Element:
    return PROVISION("Policies", PROVISION("Policy", *content))


def test_asks_for_the_policy() -> None:
    assert Provision().encode(V14_0) == body_of("provision-request-phase1-v121")
    assert Provision().name == "Provision"
    assert Provision().policy_key == "0"


@pytest.mark.parametrize("version", ProtocolVersion)
def test_sends_the_device_information_first(version: ProtocolVersion) -> None:
    device = DeviceInformation("m", "f", "o", "u")
    policies = policy(PROVISION("PolicyType", "MS-EAS-Provisioning-WBXML"))

    assert Provision(device=device).encode(version) == encode(PROVISION("Provision", device.element(), policies))


@pytest.mark.parametrize(
    ("acknowledgement", "vector"),
    [
        (Acknowledgement.APPLIED, "provision-request-phase2-ack-success"),
        (Acknowledgement.PARTIAL, "provision-request-phase2-ack-partial"),
    ],
)
def test_acknowledges_with_the_temporary_key(acknowledgement: Acknowledgement, vector: str) -> None:
    request = Provision(TEMPORARY, acknowledge=acknowledgement)

    assert request.encode(V14_1) == body_of(vector)
    assert request.policy_key == TEMPORARY


@pytest.mark.parametrize(
    ("vector", "reply"),
    [
        ("provision-response-phase1", ProvisionReply(TEMPORARY)),
        ("provision-response-phase2", ProvisionReply(FINAL)),
        ("provision-response-nopolicy", ProvisionReply(None, 2)),
        ("provision-response-status5-wrongkey", ProvisionReply(None, 5)),
        ("provision-response-remotewipe", ProvisionReply(remote_wipe=True)),
        ("provision-response-accountonlyremotewipe-161", ProvisionReply(account_only_wipe=True)),
    ],
)
def test_reads_key_status_and_wipe(vector: str, reply: ProvisionReply) -> None:
    assert read(body_of(vector)) == reply


@pytest.mark.parametrize("key", [TEMPORARY, PolicyKey("1" * 64)])
def test_takes_a_missing_status_for_success(key: PolicyKey) -> None:
    assert answer(policy(PROVISION("PolicyKey", key))) == ProvisionReply(key)


@pytest.mark.parametrize("content", [(), (PROVISION("Policies"),)])
def test_an_answer_without_a_policy_has_no_key(content: tuple[Element, ...]) -> None:
    assert answer(PROVISION("Status", "1"), *content) == ProvisionReply(None)


def test_a_wipe_counts_whatever_the_status() -> None:
    assert answer(PROVISION("Status", "140"), PROVISION("RemoteWipe")).remote_wipe


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (2, RequestRefused),
        (3, ServerBusy),
        (139, AccessDenied),
        (141, NotProvisioned),
        (145, AccessDenied),
        (165, NotProvisioned),
        (177, AccessDenied),
    ],
)
def test_a_failing_status_raises_the_error_that_it_means(status: int, remedy: type[EasError]) -> None:
    with pytest.raises(EasError, match=rf"\b{status}\b") as caught:
        answer(PROVISION("Status", str(status)), policy(PROVISION("PolicyKey", "1")))

    assert type(caught.value) is remedy


@pytest.mark.parametrize("key", ["1\r\nX: 1", "1 2", "ä", "1" * 65])
def test_a_key_that_does_not_fit_into_a_header_is_a_violation(key: str) -> None:
    with pytest.raises(ProtocolViolation, match="policy key"):
        answer(policy(PROVISION("PolicyKey", key)))


def test_provision_acknowledges_with_the_temporary_key() -> None:
    fetch = Provision(device=DEVICE), ProvisionReply(TEMPORARY)
    acknowledge = Provision(TEMPORARY, acknowledge=THIRD_PARTY), ProvisionReply(FINAL)

    assert play(provision(V14_1, THIRD_PARTY), fetch, acknowledge) == FINAL


def test_provision_leaves_the_device_to_settings_in_old_versions() -> None:
    fetch = Provision(), ProvisionReply(TEMPORARY)
    acknowledge = Provision(TEMPORARY, acknowledge=Acknowledgement.APPLIED), ProvisionReply(FINAL)

    assert play(provision(V14_0, Acknowledgement.APPLIED), fetch, acknowledge) == FINAL


@pytest.mark.parametrize(
    ("version", "trouble", "first", "second"),
    [
        (V14_0, RequestRefused("x"), None, DEVICE),
        (V14_1, RequestRefused("x"), DEVICE, None),
        (V14_0, NotProvisioned("165"), None, DEVICE),
    ],
)
def test_provision_sends_or_omits_the_device_when_the_server_refuses_the_other(
    version: ProtocolVersion, trouble: EasError, first: DeviceInformation | None, second: DeviceInformation | None
) -> None:
    refused = Provision(device=first), trouble
    fetch = Provision(device=second), ProvisionReply(TEMPORARY)
    acknowledge = Provision(TEMPORARY, acknowledge=THIRD_PARTY), ProvisionReply(FINAL)

    assert play(provision(version, THIRD_PARTY), refused, fetch, acknowledge) == FINAL


@pytest.mark.parametrize("trouble", [RequestRefused("x"), NotProvisioned("x")])
def test_provision_asks_for_the_policy_twice_at_most(trouble: EasError) -> None:
    script = [(Provision(), trouble), (Provision(device=DEVICE), trouble)]

    with pytest.raises(type(trouble)):
        play(provision(V14_0, THIRD_PARTY), *script)
    with pytest.raises(NotProvisioned):
        play(provision(V14_1, THIRD_PARTY), (Provision(device=DEVICE), NotProvisioned("x")))


def test_provision_without_a_policy_acknowledges_nothing() -> None:
    assert play(provision(V14_1, THIRD_PARTY), (Provision(device=DEVICE), ProvisionReply(None, 2))) is None


@pytest.mark.parametrize(
    ("reply", "remedy"),
    [
        (ProvisionReply(None), ProtocolViolation),
        (ProvisionReply(TEMPORARY, 3), AccessDenied),
        (ProvisionReply(TEMPORARY, 4), AccessDenied),
        (ProvisionReply(TEMPORARY, 5), NotProvisioned),
        (ProvisionReply(TEMPORARY, 6), ProtocolViolation),
    ],
)
def test_provision_grants_no_key_without_success(reply: ProvisionReply, remedy: type[EasError]) -> None:
    with pytest.raises(EasError) as first:
        play(provision(V14_1, THIRD_PARTY), (Provision(device=DEVICE), reply))
    with pytest.raises(EasError) as second:
        play(
            provision(V14_1, THIRD_PARTY),
            (Provision(device=DEVICE), ProvisionReply(TEMPORARY)),
            (Provision(TEMPORARY, acknowledge=THIRD_PARTY), reply),
        )

    assert (type(first.value), type(second.value)) == (remedy, remedy)


def test_provision_does_not_hide_that_an_acknowledgement_was_refused() -> None:
    with pytest.raises(AccessDenied) as caught:
        play(
            provision(V14_1, THIRD_PARTY),
            (Provision(device=DEVICE), ProvisionReply(TEMPORARY)),
            (Provision(TEMPORARY, acknowledge=THIRD_PARTY), AccessDenied("refused", Reason.EAS_145)),
        )

    assert caught.value.reason == Reason.EAS_145


def test_returns_what_was_acknowledged() -> None:
    fetch = Provision(device=DEVICE), ProvisionReply(TEMPORARY)
    acknowledge = Provision(TEMPORARY, acknowledge=THIRD_PARTY), ProvisionReply(FINAL)

    assert play(negotiate(V14_1, THIRD_PARTY), fetch, acknowledge) == Grant(FINAL, THIRD_PARTY)
    no_policy = Provision(device=DEVICE), ProvisionReply(None, 2)
    assert play(negotiate(V14_1, THIRD_PARTY), no_policy) == Grant(None, None)


@pytest.mark.parametrize("code", [Reason.EAS_139, Reason.EAS_145])
def test_a_refused_acknowledgement_falls_back_in_a_conversation_of_its_own(code: Reason) -> None:
    fetch = Provision(device=DEVICE), ProvisionReply(TEMPORARY)
    refused = Provision(TEMPORARY, acknowledge=THIRD_PARTY), AccessDenied("refused", code)
    accepted = Provision(TEMPORARY, acknowledge=Acknowledgement.APPLIED), ProvisionReply(FINAL)

    granted = play(negotiate(V14_1, THIRD_PARTY, [Acknowledgement.APPLIED]), fetch, refused, fetch, accepted)

    assert granted == Grant(FINAL, Acknowledgement.APPLIED)


def test_nothing_is_acknowledged_that_the_operator_did_not_allow() -> None:
    fetch = Provision(device=DEVICE), ProvisionReply(TEMPORARY)
    refused = Provision(TEMPORARY, acknowledge=THIRD_PARTY), AccessDenied("refused", Reason.EAS_145)
    partly = Provision(TEMPORARY, acknowledge=Acknowledgement.PARTIAL), AccessDenied("refused", Reason.EAS_139)

    with pytest.raises(AccessDenied, match="does not take acknowledgement 4 nor 2") as caught:
        play(negotiate(V14_1, THIRD_PARTY, [Acknowledgement.PARTIAL]), fetch, refused, fetch, partly)

    assert caught.value.reason == Reason.EAS_139


def test_a_blocked_device_tries_no_other_acknowledgement() -> None:
    with pytest.raises(AccessDenied, match="blocked"):
        play(
            negotiate(V14_1, THIRD_PARTY, [Acknowledgement.APPLIED]),
            (Provision(device=DEVICE), AccessDenied("blocked", Reason.EAS_129)),
        )


@pytest.mark.parametrize(
    ("reply", "account_only"),
    [
        (ProvisionReply(remote_wipe=True), False),
        (ProvisionReply(account_only_wipe=True), True),
        (ProvisionReply(remote_wipe=True, account_only_wipe=True), False),
    ],
)
def test_provision_stops_for_a_wipe(reply: ProvisionReply, *, account_only: bool) -> None:
    with pytest.raises(RemoteWipeRequested) as caught:
        play(provision(V14_1, THIRD_PARTY), (Provision(device=DEVICE), reply))

    assert caught.value.account_only is account_only


def test_asks_by_an_empty_provision_which_wipe_the_server_wants() -> None:
    assert WipeInquiry().encode(V16_1) == body_of("provision-request-empty")
    assert WipeInquiry().policy_key == NO_POLICY_KEY
    assert WipeInquiry().read(HttpReply(200, {}, body_of("provision-response-remotewipe"))) == ProvisionReply(
        remote_wipe=True
    )


@pytest.mark.parametrize(
    ("account_only", "vector"),
    [
        (False, "provision-request-remotewipe-ack"),
        (True, "provision-request-accountonlyremotewipe-ack-161"),
    ],
)
def test_acknowledges_the_kind_of_wipe(vector: str, *, account_only: bool) -> None:
    assert WipeAcknowledgement(account_only).encode(V16_1) == body_of(vector)
    assert WipeAcknowledgement(account_only).policy_key == NO_POLICY_KEY


def test_any_200_ends_a_wipe() -> None:
    WipeAcknowledgement(account_only=False).read(HttpReply(200, {}, body_of("provision-response-remotewipe")))
    WipeAcknowledgement(account_only=False).read(HttpReply(200, {}, b""))


@pytest.mark.parametrize(
    ("wish", "expected", "acknowledged"),
    [
        (ProvisionReply(remote_wipe=True), False, False),
        (ProvisionReply(remote_wipe=True), True, False),
        (ProvisionReply(account_only_wipe=True), False, True),
        (ProvisionReply(), True, True),
        (ProvisionReply(TEMPORARY), False, False),
    ],
)
def test_a_wipe_is_acknowledged_as_the_server_last_named_it(
    wish: ProvisionReply, *, expected: bool, acknowledged: bool
) -> None:
    play(acknowledge_wipe(expected), (WipeInquiry(), wish), (WipeAcknowledgement(acknowledged), None))
