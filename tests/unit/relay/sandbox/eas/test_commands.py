"""Tests of the rules of every command, on a session without HTTP."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from eas_watcher.commands.ping import PingStatus
from eas_watcher.names import CollectionClass, CollectionId, ProtocolVersion, ServerId
from eas_watcher.wbxml.decode import decode
from eas_watcher.wbxml.element import AIRSYNC, AIRSYNCBASE, FOLDERHIERARCHY, PING, PROVISION, SETTINGS, Element
from eas_watcher.wbxml.encode import encode
from relay.sandbox.eas.commands import answer
from relay.sandbox.eas.devices import KeyMint, PingParameters, SimulatedDevice
from relay.sandbox.eas.items import write_item
from relay.sandbox.eas.mailboxes import SimulatedItem, SimulatedMailbox
from relay.sandbox.eas.ping import PingAnswer
from relay.sandbox.eas.refusals import RefusedByStatus, refuse
from relay.sandbox.eas.rules import EasRules, Session

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
INBOX = CollectionId("5")
TYPE = PROVISION("PolicyType", "MS-EAS-Provisioning-WBXML")
DEVICE = SETTINGS("DeviceInformation", SETTINGS("Set", SETTINGS("Model", "PushRelay")))
OLD, NEW = ProtocolVersion.V12_1, ProtocolVersion.V16_1


@dataclass
class Client:
    """A client with a policy key and its session."""

    version: ProtocolVersion = NEW
    rules: EasRules = field(default_factory=EasRules)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.session = Session(
            SimulatedMailbox("ann", "secret"),
            SimulatedDevice(policy_key="7"),
            self.version,
            "7",
            self.rules,
            KeyMint(Random(1)),
            lambda: NOW,
            self.complaints.append,
        )

    def ask(self, root: Element | None, command: str | None = None) -> Element | None:
        found = answer(command or (root.tag if root else ""), root, self.session)
        assert isinstance(found, bytes)
        return decode(found) if found else None

    def ping(self, root: Element | None) -> PingAnswer | PingParameters:
        found = answer("Ping", root, self.session)
        assert not isinstance(found, bytes)
        return found

    def refused(self, root: Element, command: str | None = None) -> int:
        with pytest.raises(RefusedByStatus) as refusal:
            answer(command or root.tag, root, self.session)
        return refusal.value.status

    def hierarchy(self, key: str = "0") -> Element:
        found = self.ask(FOLDERHIERARCHY("FolderSync", FOLDERHIERARCHY("SyncKey", key)))
        assert found is not None
        return found

    def sync(self, key: str, *more: Element) -> Element | None:
        """Sync the Inbox; return the Collection of the answer, None if the answer is empty."""
        found = self.ask(sync(key, *more))
        return None if found is None else found.children[0].children[0]

    def first_key(self) -> str:
        self.hierarchy()
        found = self.sync("0")
        assert found is not None
        return text(found, "SyncKey")

    def deliver(self, age: timedelta = timedelta()) -> ServerId:
        return self.session.mailbox.add_item(
            INBOX, subject="Minutes", sender="ben@example.com", body="See you.", received=NOW - age, read=False
        )


def text(element: Element, *path: str) -> str:
    for tag in path:
        element = next(child for child in element.children if child.tag == tag)
    return element.string


def sync(key: str, *more: Element) -> Element:
    parts = AIRSYNC("SyncKey", key), AIRSYNC("CollectionId", INBOX), *more
    return AIRSYNC("Sync", AIRSYNC("Collections", AIRSYNC("Collection", *parts)))


def provision(*policy: Element, device: Element | None = DEVICE) -> Element:
    policies = PROVISION("Policies", PROVISION("Policy", *policy))
    return PROVISION("Provision", *((device,) if device else ()), policies)


def acknowledge(key: str, status: str) -> Element:
    return provision(TYPE, PROVISION("PolicyKey", key), PROVISION("Status", status), device=None)


@pytest.mark.parametrize(
    "root",
    [
        PROVISION("Provision"),
        PROVISION("Provision", DEVICE),
        PROVISION("Provision", PROVISION("Policies", PROVISION("Policy", TYPE)), DEVICE),
        PROVISION("Provision", DEVICE, PROVISION("Policies")),
        provision(),
        provision(TYPE, PROVISION("PolicyKey", "7")),
        provision(TYPE, PROVISION("PolicyKey", "7"), PROVISION("Status", "1")),
        provision(TYPE, device=SETTINGS("DeviceInformation")),
        provision(TYPE, device=SETTINGS("DeviceInformation", SETTINGS("Set"))),
        provision(
            TYPE, device=SETTINGS("DeviceInformation", SETTINGS("Set", SETTINGS("Model", "M"), SETTINGS("Oof", "1")))
        ),
        provision(TYPE, device=SETTINGS("DeviceInformation", SETTINGS("Set", SETTINGS("Model", "M" * 1025)))),
    ],
)
def test_a_provision_that_breaks_the_rules_is_malformed(root: Element) -> None:
    assert Client().refused(root) == 2


def test_another_type_of_policy_is_unknown() -> None:
    found = Client().ask(provision(PROVISION("PolicyType", "MS-WAP-Provisioning-XML")))
    assert found is not None

    assert text(found, "Policies", "Policy", "Status") == "3"


@pytest.mark.parametrize(("status", "refusal"), [("0", 2), ("5", 2), ("2", 139), ("3", 139), ("4", 145)])
def test_an_acknowledgement_that_is_not_accepted_gets_no_key(status: str, refusal: int) -> None:
    client = Client(rules=EasRules(acknowledgements=frozenset({1})))
    offer = client.ask(provision(TYPE))
    assert offer is not None
    temporary = text(offer, "Policies", "Policy", "PolicyKey")
    client.session = client.session._replace(policy_key=temporary)

    assert client.refused(acknowledge(temporary, status)) == refusal
    assert client.session.device.policy_key == "7"


def test_without_a_policy_the_server_grants_and_demands_no_key() -> None:
    client = Client(rules=EasRules(policy=False))
    client.session = client.session._replace(policy_key=None)
    for root in (provision(TYPE), acknowledge("7", "1")):
        found = client.ask(root)
        assert found is not None
        assert text(found, "Policies", "Policy", "Status") == "2"
        assert b"PolicyKey" not in repr(found).encode()
    client.hierarchy()


def test_all_commands_of_a_blocked_device_are_refused() -> None:
    client = Client()
    client.session.device.blocked = True
    client.session.device.ping = PingParameters(60, ((INBOX, CollectionClass.EMAIL),))

    assert client.refused(provision(TYPE)) == 129
    assert client.refused(sync("0")) == 129
    with pytest.raises(RefusedByStatus):
        client.ping(None)


def test_the_acknowledgement_of_a_wipe_needs_a_status_and_the_right_kind() -> None:
    client = Client()
    client.session.device.wipe = "RemoteWipe"
    assert client.refused(PROVISION("Provision", PROVISION("RemoteWipe"))) == 2
    assert client.refused(PROVISION("Provision", PROVISION("RemoteWipe", PROVISION("Status", "3")))) == 2
    assert client.refused(sync("0")) == 140
    client.ask(PROVISION("Provision", PROVISION("AccountOnlyRemoteWipe", PROVISION("Status", "1"))))

    assert len(client.complaints) == 1
    assert client.session.device.blocked


@pytest.mark.parametrize(
    "root", [FOLDERHIERARCHY("FolderSync"), FOLDERHIERARCHY("FolderSync", FOLDERHIERARCHY("SyncKey"))]
)
def test_a_folder_sync_without_a_key_is_malformed(root: Element) -> None:
    assert Client().refused(root) == 10


def test_a_command_without_a_body_is_refused() -> None:
    client = Client()
    for command in ("FolderSync", "Settings", "Provision"):
        with pytest.raises(RefusedByStatus) as refusal:
            answer(command, None, client.session)
        assert refusal.value.status == 103


def test_notes_exist_since_14_0() -> None:
    def types(version: ProtocolVersion) -> set[str]:
        changes = Client(version).hierarchy().find("Changes")
        assert changes is not None
        return {text(each, "Type") for each in changes.all("Add")}

    assert types(NEW) - types(OLD) == {"10"}


def test_a_renamed_folder_is_an_update() -> None:
    client = Client()
    key = text(client.hierarchy(), "SyncKey")
    folders = client.session.mailbox.folders
    folders[INBOX] = replace(folders[INBOX], name="Post")
    found = client.hierarchy(key)

    assert text(found, "Changes", "Update", "DisplayName") == "Post"
    assert text(found, "Changes", "Count") == "1"


def test_an_empty_sync_is_refused_because_the_server_stores_no_sync() -> None:
    with pytest.raises(RefusedByStatus) as refusal:
        answer("Sync", None, Client().session)
    assert refusal.value.status == 13


COLLECTION = AIRSYNC("Collection", AIRSYNC("SyncKey", "0"), AIRSYNC("CollectionId", INBOX))


@pytest.mark.parametrize(
    "root",
    [
        AIRSYNC("Sync"),
        AIRSYNC("Sync", AIRSYNC("Collections")),
        AIRSYNC("Sync", AIRSYNC("Collections", AIRSYNC("Status", "1"))),
        AIRSYNC("Sync", AIRSYNC("Collections", COLLECTION, COLLECTION)),
        AIRSYNC("Sync", AIRSYNC("Collections", COLLECTION), AIRSYNC("Wait", "1")),
        AIRSYNC("Sync", AIRSYNC("Collections", AIRSYNC("Collection", AIRSYNC("SyncKey", "0")))),
        AIRSYNC("Sync", AIRSYNC("Collections", AIRSYNC("Collection", AIRSYNC("CollectionId", "5")))),
        sync("0", AIRSYNC("Options", AIRSYNC("FilterType", "6"))),
    ],
)
def test_a_sync_that_breaks_the_rules_is_malformed(root: Element) -> None:
    client = Client()
    client.hierarchy()

    assert client.refused(root) == 4


@pytest.mark.parametrize(("window", "sent"), [("1", 1), ("0", 512), ("513", 512), (None, 100)])
def test_a_window_has_at_most_512_items_and_100_by_default(window: str | None, sent: int) -> None:
    client = Client()
    key = client.first_key()
    for _ in range(600):
        client.deliver()
    found = client.sync(key, *([] if window is None else [AIRSYNC("WindowSize", window)]))
    assert found is not None
    commands = found.find("Commands")
    assert commands is not None

    assert len(commands.children) == sent


def test_a_sync_without_get_changes_returns_no_changes() -> None:
    client = Client()
    key = client.first_key()
    client.deliver()

    assert client.sync(key, AIRSYNC("GetChanges", "0")) is None
    assert client.sync(key, AIRSYNC("GetChanges")) is not None


@pytest.mark.parametrize(("filter_type", "days"), [("1", 1), ("2", 3), ("3", 7), ("4", 14), ("5", 30)])
def test_a_filter_excludes_older_items(filter_type: str, days: int) -> None:
    client = Client()
    key = client.first_key()
    client.deliver(timedelta(days=days, seconds=1))
    young = client.deliver(timedelta(days=days))
    found = client.sync(key, AIRSYNC("Options", AIRSYNC("FilterType", filter_type)))
    assert found is not None
    commands = found.find("Commands")
    assert commands is not None

    assert [text(each, "ServerId") for each in commands.children] == [young]


def test_an_item_that_leaves_the_filter_is_deleted_softly() -> None:
    client = Client()
    key = client.first_key()
    item = client.deliver()
    week = AIRSYNC("Options", AIRSYNC("FilterType", "3"))
    first = client.sync(key, week)
    assert first is not None
    client.session = client.session._replace(now=lambda: NOW + timedelta(days=8))
    found = client.sync(text(first, "SyncKey"), week)
    assert found is not None

    assert text(found, "Commands", "SoftDelete", "ServerId") == item


def test_a_lost_answer_whose_change_was_undone_is_an_empty_one() -> None:
    client = Client()
    key = client.first_key()
    item = client.deliver()
    assert client.sync(key) is not None
    client.session.mailbox.delete(item)

    assert client.sync(key) is None
    assert client.complaints == []


def test_collections_without_changes_are_missing_from_the_answer() -> None:
    client = Client()
    key = client.first_key()
    client.deliver()
    calendar = AIRSYNC("Collection", AIRSYNC("SyncKey", "0"), AIRSYNC("CollectionId", "1"))
    primed = client.ask(AIRSYNC("Sync", AIRSYNC("Collections", calendar)))
    assert primed is not None
    parts = [
        AIRSYNC("Collection", AIRSYNC("SyncKey", each), AIRSYNC("CollectionId", id_))
        for id_, each in (("1", text(primed.children[0].children[0], "SyncKey")), (INBOX, key))
    ]
    found = client.ask(AIRSYNC("Sync", AIRSYNC("Collections", *parts)))
    assert found is not None

    assert [text(each, "CollectionId") for each in found.children[0].children] == [INBOX]


@pytest.mark.parametrize(
    "folders",
    [PING("Folders"), PING("Folders", PING("Id", "5")), PING("Folders", PING("Folder", PING("Class", "Email")))],
)
def test_a_ping_with_malformed_folders_is_refused(folders: Element) -> None:
    assert Client().refused(PING("Ping", PING("HeartbeatInterval", "60"), folders)) == 4


def test_a_ping_is_held_unless_there_are_changes_since_the_newest_key() -> None:
    client = Client()
    key = client.first_key()
    root = PING(
        "Ping",
        PING("HeartbeatInterval", "60"),
        PING("Folders", PING("Folder", PING("Id", INBOX), PING("Class", "Email"))),
    )
    parameters = PingParameters(60, ((INBOX, CollectionClass.EMAIL),))
    assert client.ping(root) == parameters
    client.deliver()
    found = client.ping(None)
    assert isinstance(found, PingAnswer)
    assert found.status is PingStatus.CHANGED
    assert client.sync(key) is not None
    assert client.ping(PING("Ping", PING("HeartbeatInterval", "90"))) == parameters._replace(heartbeat=90)
    assert client.complaints == []


@pytest.mark.parametrize("any_change_wakes", [False, True])
def test_flags_and_deletions_are_changes_only_where_the_rules_say_so(any_change_wakes: bool) -> None:
    client = Client(rules=EasRules(any_change_wakes=any_change_wakes))
    key = client.first_key()
    item = client.deliver()
    client.sync(key)
    client.session.device.ping = PingParameters(60, ((INBOX, CollectionClass.EMAIL),))
    assert isinstance(client.ping(None), PingParameters)
    client.session.mailbox.mark_read(item, read=True)
    assert isinstance(client.ping(None), PingAnswer) is any_change_wakes
    client.session.mailbox.delete(item)
    assert isinstance(client.ping(None), PingAnswer) is any_change_wakes


@pytest.mark.parametrize("cls", list(CollectionClass))
@pytest.mark.parametrize("version", [OLD, NEW])
def test_every_class_of_item_can_be_written_with_its_content(cls: CollectionClass, version: ProtocolVersion) -> None:
    item = SimulatedItem(ServerId("5:1"), cls, "canary-subject", "canary@example.com", "canary-body", NOW)
    written = encode(write_item("Add", item, "ann", version))

    assert b"canary-subject" in written
    assert b"canary-body" in written
    assert (b"canary@example.com" in written) is (cls not in {CollectionClass.TASKS, CollectionClass.NOTES})


@pytest.mark.parametrize(
    ("status", "http"), [(142, 449), (143, 449), (144, 449), (140, 449), (102, 400), (129, 403), (165, 400)]
)
def test_common_statuses_are_http_statuses_before_14_0(status: int, http: int) -> None:
    refusal = RefusedByStatus(status, "because")

    assert refuse("Sync", refusal, OLD) == http
    assert refuse("Sync", refusal, NEW) == AIRSYNC("Sync", AIRSYNC("Status", str(status)))


def test_the_status_of_one_command_is_a_document_in_every_version() -> None:
    assert refuse("Ping", RefusedByStatus(4, "because"), OLD) == PING("Ping", PING("Status", "4"))


def test_elements_of_other_code_pages_are_malformed_in_a_collection() -> None:
    client = Client()
    client.hierarchy()

    assert client.refused(sync("0", AIRSYNCBASE("Type", "1"))) == 4


def test_after_a_lost_state_stale_keys_are_no_fault_until_the_next_first_folder_sync() -> None:
    client = Client()
    key = client.first_key()
    client.session.device.lose_state(client.session.mint)
    client.sync(key)
    assert client.complaints == []
    client.hierarchy()
    found = client.sync(key)
    assert found is not None
    assert text(found, "Status") == "3"
    assert client.complaints == ["Sync with a key that is not valid"]
