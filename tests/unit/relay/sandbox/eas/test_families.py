"""What is odd about each family of servers, on a session without any network."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import Random

import pytest

from eas_watcher.commands.ping import PingStatus
from eas_watcher.names import CollectionClass, CollectionId, ProtocolVersion, ServerId
from eas_watcher.wbxml.element import AIRSYNC, FOLDERHIERARCHY, PING, Element
from relay.sandbox.eas.commands import Document, answer
from relay.sandbox.eas.devices import KeyMint, PingParameters, SimulatedDevice
from relay.sandbox.eas.families import FAMILIES
from relay.sandbox.eas.mailboxes import SimulatedMailbox
from relay.sandbox.eas.ping import PingAnswer
from relay.sandbox.eas.refusals import RefusedByStatus, refuse
from relay.sandbox.eas.rules import EasRules, Session

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
EXCHANGE, SOGO, ZPUSH, TRAVELER = FAMILIES.values()


@dataclass
class Talk:
    """A device with a policy key that talks to its mailbox, Inbox only."""

    rules: EasRules
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        mailbox = SimulatedMailbox("ann", "secret", self.rules.personality.folder_id)
        device = SimulatedDevice(policy_key="7")
        version = ProtocolVersion.V14_1
        self.session = Session(
            mailbox, device, version, "7", self.rules, KeyMint(Random(1)), NOW, self.complaints.append
        )
        self.inbox = mailbox.default_folder(CollectionClass.EMAIL)

    def ask(self, root: Element) -> Element | None:
        found = answer(root.tag, root, self.session)
        assert isinstance(found, Document)
        return found.root

    def hierarchy(self, key: str = "0") -> Element:
        found = self.ask(FOLDERHIERARCHY("FolderSync", FOLDERHIERARCHY("SyncKey", key)))
        assert found is not None
        return found

    def sync(self, key: str, folder: CollectionId | None = None) -> Element | None:
        parts = AIRSYNC("SyncKey", key), AIRSYNC("CollectionId", folder or self.inbox)
        found = self.ask(AIRSYNC("Sync", AIRSYNC("Collections", AIRSYNC("Collection", *parts))))
        return None if found is None else found.children[0].children[0]

    def key(self, before: str) -> str:
        found = self.sync(before)
        assert found is not None
        return text(found, "SyncKey")

    def primed(self) -> str:
        self.hierarchy()
        return self.key("0")

    def deliver(self) -> ServerId:
        return self.session.mailbox.add_item(
            self.inbox, subject="Minutes", sender="ben@example.com", body="See you.", received=NOW, read=False
        )

    def ping(self, heartbeat: int = 60) -> PingAnswer | PingParameters:
        folder = PING("Folder", PING("Id", self.inbox), PING("Class", "Email"))
        root = PING("Ping", PING("HeartbeatInterval", str(heartbeat)), PING("Folders", folder))
        found = answer("Ping", root, self.session)
        assert not isinstance(found, Document)
        return found

    def status(self, heartbeat: int = 60) -> PingStatus | None:
        """Tell the status of a Ping's answer; None: it is held."""
        found = self.ping(heartbeat)
        return found.status if isinstance(found, PingAnswer) else None


def text(element: Element, tag: str) -> str:
    found = element.find(tag)
    assert found is not None
    return found.string


def tags(collection: Element | None) -> list[str]:
    commands = None if collection is None else collection.find("Commands")
    return [] if commands is None else [child.tag for child in commands.children]


def test_sogo_wants_one_more_sync_after_adds() -> None:
    talk = Talk(SOGO)
    key = talk.primed()
    talk.deliver()
    key = talk.key(key)
    assert talk.status() is PingStatus.CHANGED
    more = talk.sync(key)
    assert more is not None
    assert tags(more) == []
    assert talk.status() is None
    assert talk.sync(text(more, "SyncKey")) is None


def test_sogo_holds_a_ping_beyond_its_maximum_before_it_says_so() -> None:
    talk = Talk(SOGO)
    talk.primed()
    found = talk.ping(600)

    assert isinstance(found, PingParameters)
    assert (found.heartbeat, found.limit) == (600, 300)


def test_sogo_raises_a_short_heartbeat_without_a_word() -> None:
    talk = Talk(SOGO)
    talk.primed()
    found = talk.ping(1)

    assert isinstance(found, PingParameters)
    assert (found.heartbeat, found.limit) == (10, None)


@pytest.mark.parametrize(("rules", "status"), [(SOGO, None), (EXCHANGE, PingStatus.CHANGED)])
def test_a_folder_that_was_never_synced_is_news_or_deaf(rules: EasRules, status: PingStatus | None) -> None:
    talk = Talk(rules)
    talk.hierarchy()
    talk.deliver()

    assert talk.status() is status


@pytest.mark.parametrize(("rules", "status"), [(SOGO, None), (EXCHANGE, 7), (ZPUSH, 7), (TRAVELER, 7)])
def test_new_folders_end_a_ping_or_do_not(rules: EasRules, status: int | None) -> None:
    talk = Talk(rules)
    talk.primed()
    talk.session.mailbox.add_folder("Projects")

    assert talk.status() == status


@pytest.mark.parametrize(("rules", "status"), [(SOGO, "3"), (EXCHANGE, None), (ZPUSH, None)])
def test_a_hierarchy_read_anew_voids_keys_or_does_not(rules: EasRules, status: str | None) -> None:
    talk = Talk(rules)
    key = talk.primed()
    talk.hierarchy()
    found = talk.sync(key)

    assert (None if found is None else text(found, "Status")) == status
    assert talk.complaints == []


def test_sogo_tells_all_mail_folders_as_deleted_while_its_mail_store_is_down() -> None:
    talk = Talk(SOGO)
    key = talk.primed()
    hierarchy = text(talk.hierarchy(), "SyncKey")
    talk.session.mailbox.store_down = True
    changes = talk.hierarchy(hierarchy).find("Changes")
    assert changes is not None
    assert {child.tag for child in changes.children} == {"Count", "Delete"}
    assert talk.sync(key) is None
    assert talk.status() is None


def test_zpush_keeps_items_back_when_a_key_comes_again_and_again() -> None:
    talk = Talk(ZPUSH)
    key = talk.primed()
    for _ in range(3):
        talk.deliver()

    assert [tags(talk.sync(key)) for _ in range(5)] == [["Add"] * 3, ["Add"] * 3, ["Add"], ["Add"], ["Delete"]]
    assert len(talk.complaints) == 1


def test_exchange_repeats_an_answer_as_often_as_it_is_asked() -> None:
    talk = Talk(EXCHANGE)
    key = talk.primed()
    talk.deliver()

    assert [tags(talk.sync(key)) for _ in range(6)] == [["Add"]] * 6
    assert talk.complaints == []


def test_zpush_turns_to_7_when_no_sync_takes_the_changes() -> None:
    talk = Talk(ZPUSH)
    key = talk.primed()
    talk.deliver()
    assert [talk.status() for _ in range(10)] == [PingStatus.CHANGED] * 9 + [PingStatus.HIERARCHY_CHANGED]
    talk.sync(key)
    talk.deliver()
    assert talk.status() is PingStatus.CHANGED


def test_zpush_forgets_the_device_when_it_syncs_a_folder_that_is_not_there() -> None:
    talk = Talk(ZPUSH)
    key = talk.primed()
    with pytest.raises(RefusedByStatus) as refusal:
        talk.sync(key, CollectionId("U99999"))

    assert refusal.value.status == 12
    found = talk.sync(key)
    assert found is not None
    assert text(found, "Status") == "3"


def test_zpush_serves_a_device_that_never_had_a_policy_key() -> None:
    talk = Talk(ZPUSH)
    talk.session.device.policy_key = None
    talk.session = replace(talk.session, policy_key=None)
    talk.hierarchy()
    talk.session = replace(talk.session, policy_key="0")
    with pytest.raises(RefusedByStatus):
        talk.hierarchy()


@pytest.mark.parametrize(("rules", "status"), [(ZPUSH, PingStatus.HIERARCHY_CHANGED), (EXCHANGE, None)])
def test_a_policy_that_is_due_ends_a_ping_or_does_not(rules: EasRules, status: PingStatus | None) -> None:
    talk = Talk(rules)
    talk.primed()
    talk.session.device.refresh_due = True

    assert talk.status() is status


def test_zpush_names_its_maximum_and_not_its_minimum() -> None:
    talk = Talk(replace(ZPUSH, heartbeat_minimum=100, heartbeat_maximum=300))
    talk.primed()
    low, high = talk.ping(60), talk.ping(600)
    assert isinstance(low, PingAnswer)
    assert isinstance(high, PingAnswer)
    assert low.document.find("HeartbeatInterval") is None
    assert text(high.document, "HeartbeatInterval") == "300"


def test_zpush_asks_for_a_policy_by_http_in_every_version() -> None:
    assert refuse("Sync", RefusedByStatus(142, "because"), ProtocolVersion.V14_1, by_http=True) == 449


def test_folder_ids_look_as_the_family_makes_them() -> None:
    inboxes = [Talk(rules).inbox for rules in FAMILIES.values()]

    assert inboxes == ["5", "mail%2F" + f"{5:032x}", "U00005", f"{5:032X}"]
    assert all(len(inbox) <= 64 for inbox in inboxes)
