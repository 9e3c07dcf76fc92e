"""Every command's rules, on a session without any network."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from eas_watcher.commands.ping import PingStatus
from eas_watcher.names import CollectionClass, CollectionId, ProtocolVersion, ServerId
from eas_watcher.wbxml.element import AIRSYNC, AIRSYNCBASE, FOLDERHIERARCHY, PING, PROVISION, SETTINGS, Element
from eas_watcher.wbxml.encode import encode
from relay.sandbox.eas.commands import Document, answer
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
class Play:
    """A device that talks to its mailbox."""

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
            NOW,
            self.complaints.append,
        )

    def ask(self, root: Element | None, command: str | None = None) -> Element | None:
        found = answer(command or (root.tag if root else ""), root, self.session)
        assert isinstance(found, Document)
        if found.root is not None:
            encode(found.root)  # everything must have a token
        return found.root

    def ping(self, root: Element | None) -> PingAnswer | PingParameters:
        found = answer("Ping", root, self.session)
        assert not isinstance(found, Document)
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
        """Sync the Inbox; return the Collection of the answer, None for an empty one."""
        found = self.ask(sync(key, *more))
        return None if found is None else found.children[0].children[0]

    def primed(self) -> str:
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
    assert Play().refused(root) == 2


def test_another_type_of_policy_is_not_known() -> None:
    found = Play().ask(provision(PROVISION("PolicyType", "MS-WAP-Provisioning-XML")))
    assert found is not None

    assert text(found, "Policies", "Policy", "Status") == "3"


@pytest.mark.parametrize(("status", "refusal"), [("0", 2), ("5", 2), ("2", 139), ("3", 139), ("4", 145)])
def test_acknowledgements_that_are_not_accepted_get_no_key(status: str, refusal: int) -> None:
    play = Play(rules=EasRules(acknowledgements=frozenset({1})))
    offer = play.ask(provision(TYPE))
    assert offer is not None
    temporary = text(offer, "Policies", "Policy", "PolicyKey")
    play.session = replace(play.session, policy_key=temporary)

    assert play.refused(acknowledge(temporary, status)) == refusal
    assert play.session.device.policy_key == "7"


def test_without_a_policy_nothing_is_granted_and_no_key_asked_for() -> None:
    play = Play(rules=EasRules(policy=False))
    play.session = replace(play.session, policy_key=None)
    for root in (provision(TYPE), acknowledge("7", "1")):
        found = play.ask(root)
        assert found is not None
        assert text(found, "Policies", "Policy", "Status") == "2"
        assert b"PolicyKey" not in repr(found).encode()
    play.hierarchy()


def test_a_blocked_device_is_refused_everything() -> None:
    play = Play()
    play.session.device.blocked = True
    play.session.device.ping = PingParameters(60, ((INBOX, CollectionClass.EMAIL),))

    assert play.refused(provision(TYPE)) == 129
    assert play.refused(sync("0")) == 129
    with pytest.raises(RefusedByStatus):
        play.ping(None)


def test_the_acknowledgement_of_a_wipe_needs_a_status_and_the_right_kind() -> None:
    play = Play()
    play.session.device.wipe = "RemoteWipe"
    assert play.refused(PROVISION("Provision", PROVISION("RemoteWipe"))) == 2
    assert play.refused(PROVISION("Provision", PROVISION("RemoteWipe", PROVISION("Status", "3")))) == 2
    assert play.refused(sync("0")) == 140
    play.ask(PROVISION("Provision", PROVISION("AccountOnlyRemoteWipe", PROVISION("Status", "1"))))

    assert len(play.complaints) == 1
    assert play.session.device.blocked


@pytest.mark.parametrize(
    "root", [FOLDERHIERARCHY("FolderSync"), FOLDERHIERARCHY("FolderSync", FOLDERHIERARCHY("SyncKey"))]
)
def test_a_folder_sync_without_a_key_is_malformed(root: Element) -> None:
    assert Play().refused(root) == 10


def test_a_command_without_a_body_is_refused() -> None:
    play = Play()
    for command in ("FolderSync", "Settings", "Provision"):
        with pytest.raises(RefusedByStatus) as refusal:
            answer(command, None, play.session)
        assert refusal.value.status == 103


def test_notes_came_with_14_0() -> None:
    def types(version: ProtocolVersion) -> set[str]:
        changes = Play(version).hierarchy().find("Changes")
        assert changes is not None
        return {text(each, "Type") for each in changes.all("Add")}

    assert types(NEW) - types(OLD) == {"10"}


def test_a_renamed_folder_is_an_update() -> None:
    play = Play()
    key = text(play.hierarchy(), "SyncKey")
    folders = play.session.mailbox.folders
    folders[INBOX] = replace(folders[INBOX], name="Post")
    found = play.hierarchy(key)

    assert text(found, "Changes", "Update", "DisplayName") == "Post"
    assert text(found, "Changes", "Count") == "1"


def test_an_empty_sync_is_refused_for_nothing_is_stored() -> None:
    with pytest.raises(RefusedByStatus) as refusal:
        answer("Sync", None, Play().session)
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
    play = Play()
    play.hierarchy()

    assert play.refused(root) == 4


@pytest.mark.parametrize(("window", "sent"), [("1", 1), ("0", 512), ("513", 512), (None, 100)])
def test_a_window_takes_at_most_512_items_and_100_unasked(window: str | None, sent: int) -> None:
    play = Play()
    key = play.primed()
    for _ in range(600):
        play.deliver()
    found = play.sync(key, *([] if window is None else [AIRSYNC("WindowSize", window)]))
    assert found is not None
    commands = found.find("Commands")
    assert commands is not None

    assert len(commands.children) == sent


def test_changes_that_are_not_asked_for_do_not_come() -> None:
    play = Play()
    key = play.primed()
    play.deliver()

    assert play.sync(key, AIRSYNC("GetChanges", "0")) is None
    assert play.sync(key, AIRSYNC("GetChanges")) is not None


@pytest.mark.parametrize(("filter_type", "days"), [("1", 1), ("2", 3), ("3", 7), ("4", 14), ("5", 30)])
def test_a_filter_keeps_older_items_out(filter_type: str, days: int) -> None:
    play = Play()
    key = play.primed()
    play.deliver(timedelta(days=days, seconds=1))
    young = play.deliver(timedelta(days=days))
    found = play.sync(key, AIRSYNC("Options", AIRSYNC("FilterType", filter_type)))
    assert found is not None
    commands = found.find("Commands")
    assert commands is not None

    assert [text(each, "ServerId") for each in commands.children] == [young]


def test_an_item_that_leaves_the_filter_is_deleted_softly() -> None:
    play = Play()
    key = play.primed()
    item = play.deliver()
    week = AIRSYNC("Options", AIRSYNC("FilterType", "3"))
    first = play.sync(key, week)
    assert first is not None
    play.session = replace(play.session, now=NOW + timedelta(days=8))
    found = play.sync(text(first, "SyncKey"), week)
    assert found is not None

    assert text(found, "Commands", "SoftDelete", "ServerId") == item


def test_a_lost_answer_whose_change_was_undone_is_an_empty_one() -> None:
    play = Play()
    key = play.primed()
    item = play.deliver()
    assert play.sync(key) is not None
    play.session.mailbox.delete(item)

    assert play.sync(key) is None
    assert play.complaints == []


def test_collections_without_changes_are_missing_from_the_answer() -> None:
    play = Play()
    key = play.primed()
    play.deliver()
    calendar = AIRSYNC("Collection", AIRSYNC("SyncKey", "0"), AIRSYNC("CollectionId", "1"))
    primed = play.ask(AIRSYNC("Sync", AIRSYNC("Collections", calendar)))
    assert primed is not None
    parts = [
        AIRSYNC("Collection", AIRSYNC("SyncKey", each), AIRSYNC("CollectionId", id_))
        for id_, each in (("1", text(primed.children[0].children[0], "SyncKey")), (INBOX, key))
    ]
    found = play.ask(AIRSYNC("Sync", AIRSYNC("Collections", *parts)))
    assert found is not None

    assert [text(each, "CollectionId") for each in found.children[0].children] == [INBOX]


@pytest.mark.parametrize(
    "folders",
    [PING("Folders"), PING("Folders", PING("Id", "5")), PING("Folders", PING("Folder", PING("Class", "Email")))],
)
def test_a_ping_with_malformed_folders_is_refused(folders: Element) -> None:
    assert Play().refused(PING("Ping", PING("HeartbeatInterval", "60"), folders)) == 4


def test_a_ping_is_held_unless_there_is_news_for_the_newest_key() -> None:
    play = Play()
    key = play.primed()
    root = PING(
        "Ping",
        PING("HeartbeatInterval", "60"),
        PING("Folders", PING("Folder", PING("Id", INBOX), PING("Class", "Email"))),
    )
    parameters = PingParameters(60, ((INBOX, CollectionClass.EMAIL),))
    assert play.ping(root) == parameters
    play.deliver()
    found = play.ping(None)
    assert isinstance(found, PingAnswer)
    assert found.status is PingStatus.CHANGED
    assert play.sync(key) is not None
    assert play.ping(PING("Ping", PING("HeartbeatInterval", "90"))) == replace(parameters, heartbeat=90)
    assert play.complaints == []


@pytest.mark.parametrize("any_change_wakes", [False, True])
def test_flags_and_deletes_are_news_only_where_the_rules_say_so(any_change_wakes: bool) -> None:
    play = Play(rules=EasRules(any_change_wakes=any_change_wakes))
    key = play.primed()
    item = play.deliver()
    play.sync(key)
    play.session.device.ping = PingParameters(60, ((INBOX, CollectionClass.EMAIL),))
    assert isinstance(play.ping(None), PingParameters)
    play.session.mailbox.mark_read(item, read=True)
    assert isinstance(play.ping(None), PingAnswer) is any_change_wakes
    play.session.mailbox.delete(item)
    assert isinstance(play.ping(None), PingAnswer) is any_change_wakes


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


def test_a_commands_own_status_is_a_document_in_every_version() -> None:
    assert refuse("Ping", RefusedByStatus(4, "because"), OLD) == PING("Ping", PING("Status", "4"))


def test_elements_of_other_pages_have_no_place_in_a_collection() -> None:
    play = Play()
    play.hierarchy()

    assert play.refused(sync("0", AIRSYNCBASE("Type", "1"))) == 4


def test_a_lost_state_excuses_stale_keys_until_the_hierarchy_is_read_anew() -> None:
    play = Play()
    key = play.primed()
    play.session.device.lose_state(play.session.mint)
    play.sync(key)
    assert play.complaints == []
    play.hierarchy()
    found = play.sync(key)
    assert found is not None
    assert text(found, "Status") == "3"
    assert play.complaints == ["Sync with a key that is not valid"]
