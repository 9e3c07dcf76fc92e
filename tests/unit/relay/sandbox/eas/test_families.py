"""Tests of the oddities of each family of servers, on a session without HTTP."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import Random

import pytest

from eas_watcher.commands.ping import PingStatus
from eas_watcher.names import CollectionClass, CollectionId, ProtocolVersion, ServerId
from eas_watcher.wbxml.decode import decode
from eas_watcher.wbxml.element import AIRSYNC, FOLDERHIERARCHY, PING, Element
from relay.sandbox.eas.commands import answer
from relay.sandbox.eas.devices import KeyMint, PingParameters, SimulatedDevice
from relay.sandbox.eas.families import FAMILIES
from relay.sandbox.eas.mailboxes import SimulatedMailbox
from relay.sandbox.eas.ping import PingAnswer
from relay.sandbox.eas.refusals import RefusedByStatus, refuse
from relay.sandbox.eas.rules import EasRules, Session

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
EXCHANGE, SOGO, ZPUSH, TRAVELER = FAMILIES.values()


@dataclass
class Client:
    """A client with a policy key that syncs and pings only the Inbox."""

    rules: EasRules
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        mailbox = SimulatedMailbox("ann", "secret", self.rules.personality.folder_id)
        device = SimulatedDevice(policy_key="7")
        version = ProtocolVersion.V14_1
        self.session = Session(
            mailbox, device, version, "7", self.rules, KeyMint(Random(1)), lambda: NOW, self.complaints.append
        )
        self.inbox = mailbox.default_folder(CollectionClass.EMAIL)

    def ask(self, root: Element) -> Element | None:
        found = answer(root.tag, root, self.session)
        assert isinstance(found, bytes)
        return decode(found) if found else None

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

    def first_key(self) -> str:
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
        assert not isinstance(found, bytes)
        return found

    def status(self, heartbeat: int = 60) -> PingStatus | None:
        """Return the status of the answer to a Ping; None: the server holds it."""
        found = self.ping(heartbeat)
        return found.status if isinstance(found, PingAnswer) else None


def text(element: Element, tag: str) -> str:
    found = element.find(tag)
    assert found is not None
    return found.string


def tags(collection: Element | None) -> list[str]:
    commands = None if collection is None else collection.find("Commands")
    return [] if commands is None else [child.tag for child in commands.children]


def test_sogo_expects_one_more_sync_after_adds() -> None:
    client = Client(SOGO)
    key = client.first_key()
    client.deliver()
    key = client.key(key)
    assert client.status() is PingStatus.CHANGED
    more = client.sync(key)
    assert more is not None
    assert tags(more) == []
    assert client.status() is None
    assert client.sync(text(more, "SyncKey")) is None


def test_sogo_holds_a_long_ping_before_it_answers_status_5() -> None:
    client = Client(SOGO)
    client.first_key()
    found = client.ping(600)

    assert isinstance(found, PingParameters)
    assert (found.heartbeat, found.limit) == (600, 300)


def test_sogo_silently_raises_a_short_heartbeat() -> None:
    client = Client(SOGO)
    client.first_key()
    found = client.ping(1)

    assert isinstance(found, PingParameters)
    assert (found.heartbeat, found.limit) == (10, None)


@pytest.mark.parametrize(("rules", "status"), [(SOGO, None), (EXCHANGE, PingStatus.CHANGED)])
def test_a_ping_on_a_folder_that_was_never_synced_answers_or_not(rules: EasRules, status: PingStatus | None) -> None:
    client = Client(rules)
    client.hierarchy()
    client.deliver()

    assert client.status() is status


@pytest.mark.parametrize(("rules", "status"), [(SOGO, None), (EXCHANGE, 7), (ZPUSH, 7), (TRAVELER, 7)])
def test_a_new_folder_ends_a_ping_or_not(rules: EasRules, status: int | None) -> None:
    client = Client(rules)
    client.first_key()
    client.session.mailbox.add_folder("Projects")

    assert client.status() == status


@pytest.mark.parametrize(("rules", "status"), [(SOGO, "3"), (EXCHANGE, None), (ZPUSH, None)])
def test_another_first_folder_sync_invalidates_sync_keys_or_not(rules: EasRules, status: str | None) -> None:
    client = Client(rules)
    key = client.first_key()
    client.hierarchy()
    found = client.sync(key)

    assert (None if found is None else text(found, "Status")) == status
    assert client.complaints == []


def test_sogo_reports_all_mail_folders_as_deleted_while_its_mail_store_is_down() -> None:
    client = Client(SOGO)
    key = client.first_key()
    hierarchy = text(client.hierarchy(), "SyncKey")
    client.session.mailbox.store_down = True
    changes = client.hierarchy(hierarchy).find("Changes")
    assert changes is not None
    assert {child.tag for child in changes.children} == {"Count", "Delete"}
    assert client.sync(key) is None
    assert client.status() is None


def test_zpush_withholds_items_when_a_client_repeats_a_key() -> None:
    client = Client(ZPUSH)
    key = client.first_key()
    for _ in range(3):
        client.deliver()

    assert [tags(client.sync(key)) for _ in range(5)] == [["Add"] * 3, ["Add"] * 3, ["Add"], ["Add"], ["Delete"]]
    assert len(client.complaints) == 1


def test_exchange_repeats_its_answer_for_a_repeated_key() -> None:
    client = Client(EXCHANGE)
    key = client.first_key()
    client.deliver()

    assert [tags(client.sync(key)) for _ in range(6)] == [["Add"]] * 6
    assert client.complaints == []


def test_zpush_answers_7_after_nine_changed_pings_without_a_sync() -> None:
    client = Client(ZPUSH)
    key = client.first_key()
    client.deliver()
    assert [client.status() for _ in range(10)] == [PingStatus.CHANGED] * 9 + [PingStatus.HIERARCHY_CHANGED]
    client.sync(key)
    client.deliver()
    assert client.status() is PingStatus.CHANGED


def test_zpush_forgets_the_sync_keys_of_a_device_that_syncs_an_unknown_folder() -> None:
    client = Client(ZPUSH)
    key = client.first_key()
    with pytest.raises(RefusedByStatus) as refusal:
        client.sync(key, CollectionId("U99999"))

    assert refusal.value.status == 12
    found = client.sync(key)
    assert found is not None
    assert text(found, "Status") == "3"


def test_zpush_serves_a_device_that_never_had_a_policy_key() -> None:
    client = Client(ZPUSH)
    client.session.device.policy_key = None
    client.session = client.session._replace(policy_key=None)
    client.hierarchy()
    client.session = client.session._replace(policy_key="0")
    with pytest.raises(RefusedByStatus):
        client.hierarchy()


@pytest.mark.parametrize(("rules", "status"), [(ZPUSH, PingStatus.HIERARCHY_CHANGED), (EXCHANGE, None)])
def test_a_policy_that_must_be_acknowledged_ends_a_ping_or_not(rules: EasRules, status: PingStatus | None) -> None:
    client = Client(rules)
    client.first_key()
    client.session.device.refresh_due = True

    assert client.status() is status


def test_zpush_names_its_maximum_and_not_its_minimum() -> None:
    client = Client(replace(ZPUSH, heartbeat_minimum=100, heartbeat_maximum=300))
    client.first_key()
    low, high = client.ping(60), client.ping(600)
    assert isinstance(low, PingAnswer)
    assert isinstance(high, PingAnswer)
    assert low.document.find("HeartbeatInterval") is None
    assert text(high.document, "HeartbeatInterval") == "300"


def test_zpush_demands_a_policy_by_http_in_every_version() -> None:
    assert refuse("Sync", RefusedByStatus(142, "because"), ProtocolVersion.V14_1, by_http=True) == 449


def test_folder_ids_have_the_format_of_the_family() -> None:
    inboxes = [Client(rules).inbox for rules in FAMILIES.values()]

    assert inboxes == ["5", "mail%2F" + f"{5:032x}", "U00005", f"{5:032X}"]
    assert all(len(inbox) <= 64 for inbox in inboxes)
