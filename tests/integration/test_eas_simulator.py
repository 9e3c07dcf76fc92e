"""The simulated server with raw requests: it refuses the requests that real ones refuse, and answers as specified."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import pytest
import trustme

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.names import CollectionId, ProtocolVersion
from eas_watcher.wbxml.decode import decode
from eas_watcher.wbxml.element import AIRSYNC, AIRSYNCBASE, FOLDERHIERARCHY, PING, PROVISION, SETTINGS, Element
from eas_watcher.wbxml.encode import encode
from relay.sandbox.eas.failures import AnswerHttp, Cut, FailurePlan, Garble, Stall
from relay.sandbox.eas.rules import EasRules
from relay.sandbox.eas.server import open_eas_simulator
from relay.sandbox.eas.simulator import EasSimulator
from tests.waiting import until

ANN, PASSWORD = "ann@example.com", "secret"
WBXML = "application/vnd.ms-sync.wbxml"
INBOX = "5"
LIMIT = 10.0  # seconds
DEVICE = SETTINGS("DeviceInformation", SETTINGS("Set", SETTINGS("Model", "PushRelay")))
POLICY_TYPE = PROVISION("PolicyType", "MS-EAS-Provisioning-WBXML")


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def root(self) -> Element:
        return decode(self.body)

    def text(self, *path: str) -> str:
        element = self.root
        for tag in path:
            found = next((child for child in element.children if child.tag == tag), None)
            assert found is not None, f"{element.tag} has no {tag}"
            element = found
        return element.string


@dataclass
class Device:
    """A client that sends any request."""

    session: aiohttp.ClientSession
    simulator: EasSimulator
    version: str = "14.1"
    policy_key: str | None = None
    query: dict[str, str] = field(
        default_factory=lambda: {"User": ANN, "DeviceId": "D0011223344", "DeviceType": "PushRelay"}
    )
    login: tuple[str, str] | None = (ANN, PASSWORD)

    async def send(self, method: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> Answer:
        authorization = {} if self.login is None else {"Authorization": BasicCredential(*self.login).authorization()}
        async with self.session.request(
            method,
            self.simulator.url,
            params=query,
            headers={**headers, **authorization},
            data=body or None,
            skip_auto_headers=("Content-Type",),
            timeout=aiohttp.ClientTimeout(LIMIT),
        ) as response:
            return Answer(response.status, response.headers.copy(), await response.read())

    async def post(
        self,
        command: str,
        body: Element | bytes = b"",
        query: Mapping[str, str | None] | None = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> Answer:
        """Send a valid command, with the changes of `query` and `headers`; None leaves a field out."""
        written = encode(body) if isinstance(body, Element) else body
        good: dict[str, str | None] = {
            "MS-ASProtocolVersion": self.version,
            "Content-Type": WBXML if written else None,
            "X-MS-PolicyKey": None if command == "Ping" else self.policy_key,
        }
        asked = {"Cmd": command, **self.query, **(query or {})}
        return await self.send("POST", _given(asked), _given({**good, **(headers or {})}), written)

    async def provision(self) -> None:
        informed = [DEVICE] if self.version >= "14.1" else []
        offer = await self.post(
            "Provision",
            PROVISION("Provision", *informed, PROVISION("Policies", PROVISION("Policy", POLICY_TYPE))),
            headers={"X-MS-PolicyKey": "0"},
        )
        temporary = offer.text("Policies", "Policy", "PolicyKey")
        final = await self.post("Provision", acknowledgement(temporary), headers={"X-MS-PolicyKey": temporary})
        self.policy_key = final.text("Policies", "Policy", "PolicyKey")

    async def folder_sync(self, key: str = "0") -> Answer:
        return await self.post("FolderSync", FOLDERHIERARCHY("FolderSync", FOLDERHIERARCHY("SyncKey", key)))

    async def sync(self, key: str, *more: Element) -> Answer:
        return await self.post("Sync", sync(key, *more))

    async def prime(self) -> str:
        """Sync until the key covers all items."""
        await self.provision()
        await self.folder_sync()
        key = (await self.sync("0")).text("Collections", "Collection", "SyncKey")
        while (answer := await self.sync(key)).body:
            key = answer.text("Collections", "Collection", "SyncKey")
        return key

    async def ping(self, heartbeat: int = 60, *collections: str) -> Answer:
        return await self.post("Ping", ping(heartbeat, *(collections or (INBOX,))))


def _given(values: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}


def sync(key: str, *more: Element, collection: str = INBOX) -> Element:
    parts = AIRSYNC("SyncKey", key), AIRSYNC("CollectionId", collection), *more
    return AIRSYNC("Sync", AIRSYNC("Collections", AIRSYNC("Collection", *parts)))


def ping(heartbeat: int, *collections: str, cls: str = "Email") -> Element:
    folders = (PING("Folder", PING("Id", collection), PING("Class", cls)) for collection in collections)
    return PING("Ping", PING("HeartbeatInterval", str(heartbeat)), PING("Folders", *folders))


def acknowledgement(key: str, status: str = "1") -> Element:
    policy = PROVISION("Policy", POLICY_TYPE, PROVISION("PolicyKey", key), PROVISION("Status", status))
    return PROVISION("Provision", PROVISION("Policies", policy))


@asynccontextmanager
async def device(version: str = "14.1", rules: EasRules | None = None) -> AsyncIterator[Device]:
    async with open_eas_simulator(tls=None, rules=rules) as simulator, aiohttp.ClientSession() as session:
        simulator.add_mailbox(ANN, PASSWORD)
        yield Device(session, simulator, version)


async def test_a_connection_at_rest_is_closed_in_time_and_one_with_a_ping_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("relay.sandbox.eas.http1.KEEP_IDLE", 0.2)
    async with device() as ann:
        await ann.prime()
        connections = ann.simulator.connections
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(ann.ping())
            await until(lambda: ann.simulator.held == 1)
            await asyncio.sleep(0.5)
            assert connections.state()["http/1.1"] == {"connections": 1, "held": 1}
            ann.simulator.deliver(ANN)
        assert asking.result().text("Status") == "2"
        await until(lambda: connections.state()["http/1.1"]["connections"] == 0)


async def test_options_over_tls_tell_versions_and_commands() -> None:
    authority = trustme.CA()
    served, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(served)
    authority.configure_trust(trusting)
    connector = aiohttp.TCPConnector(ssl=trusting)
    versions = (ProtocolVersion.V14_1, ProtocolVersion.V16_1)
    async with (
        open_eas_simulator(tls=served, versions=versions) as simulator,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        simulator.add_mailbox(ANN, PASSWORD)
        assert simulator.url == f"https://127.0.0.1:{simulator.port}/Microsoft-Server-ActiveSync"
        answer = await Device(session, simulator).send("OPTIONS", {}, {}, b"")

        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["MS-ASProtocolVersions"] == "14.1,16.1"
        assert answer.headers["MS-ASProtocolCommands"] == "FolderSync,Ping,Provision,Settings,Sync"
        assert "Content-Type" not in answer.headers


@pytest.mark.parametrize("login", [None, ("ann@example.com", "wrong"), ("nobody@example.com", PASSWORD)])
async def test_wrong_logins_are_refused_and_counted(login: tuple[str, str] | None) -> None:
    async with device() as ann:
        ann.login = login
        for answer in (await ann.send("OPTIONS", {}, {}, b""), await ann.folder_sync()):
            assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Basic realm="simulated mailboxes"')
        assert ann.simulator.records.refusals == ({} if login is None else {login[0]: 2})


async def test_any_user_has_a_mailbox_with_the_password_for_everybody() -> None:
    async with device(rules=EasRules(any_password="open")) as ben:
        ben.login, ben.query["User"] = ("ben", "open"), "ben"
        await ben.prime()

        assert ben.simulator.users == (ANN, "ben")


@pytest.mark.parametrize(
    ("status", "query", "headers"),
    [
        (403, {"User": "ben@example.com"}, {}),
        (400, {"User": None}, {}),
        (400, {"DeviceId": None}, {}),
        (400, {"DeviceId": "with-hyphen"}, {}),
        (400, {"DeviceId": "D" * 33}, {}),
        (400, {"DeviceType": "Push Relay"}, {}),
        (400, {"DeviceType": None}, {}),
        (400, {"Cmd": None}, {}),
        (501, {"Cmd": "SendMail"}, {}),
        (501, {"Cmd": "foldersync"}, {}),
        (400, {}, {"MS-ASProtocolVersion": None}),
        (400, {}, {"MS-ASProtocolVersion": "14,1"}),
        (400, {}, {"MS-ASProtocolVersion": "2.5"}),
        (400, {}, {"Content-Type": None}),
        (400, {}, {"Content-Type": "text/xml"}),
        (400, {}, {"X-MS-PolicyKey": "abc"}),
        (400, {}, {"X-MS-PolicyKey": "4294967296"}),
    ],
    ids=str,
)
async def test_requests_of_a_wrong_form_are_refused(
    status: int, query: Mapping[str, str | None], headers: Mapping[str, str | None]
) -> None:
    async with device() as ann:
        await ann.provision()
        body = FOLDERHIERARCHY("FolderSync", FOLDERHIERARCHY("SyncKey", "0"))
        answer = await ann.post("FolderSync", body, query, headers)

        assert (answer.status, answer.body) == (status, b"")
        assert len(ann.simulator.complaints) == 1


async def test_a_content_type_without_a_body_is_refused() -> None:
    async with device() as ann:
        await ann.prime()
        answer = await ann.post("Ping", headers={"Content-Type": WBXML})

        assert answer.status == 400


async def test_other_methods_are_refused() -> None:
    async with device() as ann:
        assert (await ann.send("GET", {}, {}, b"")).status == 405


@pytest.mark.parametrize(("version", "status"), [("14.0", 200), ("12.1", 400)])
async def test_a_version_that_was_given_up_is_refused(version: str, status: int) -> None:
    async with device(version, EasRules(versions=(ProtocolVersion.V16_1,))) as ann:
        answer = await ann.folder_sync()

        assert answer.status == status
        assert status == 400 or answer.text("Status") == "138"


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"\x03\x01\x6a", "102"), (encode(ping(60, INBOX)), "103"), (b"", "103")],
    ids=["cut off", "another document", "none"],
)
async def test_a_wrong_document_is_refused(body: bytes, status: str) -> None:
    async with device() as ann:
        await ann.provision()
        answer = await ann.post("FolderSync", body)

        assert answer.text("Status") == status


@pytest.mark.parametrize("version", ["12.1", "14.0", "14.1", "16.0", "16.1"])
async def test_a_missing_wrong_or_stale_policy_key_is_refused(version: str) -> None:
    async with device(version) as ann:

        async def refused(status: str) -> None:
            answer = await ann.folder_sync()
            if version == "12.1":
                assert (answer.status, answer.body) == (449, b"")
            else:
                assert (answer.status, answer.text("Status")) == (200, status)

        await refused("142")
        await ann.provision()
        assert (await ann.folder_sync()).text("Status") == "1"
        ann.simulator.refresh_policy(ANN)
        await refused("143")
        ann.policy_key = "123"
        await refused("144")
        ann.policy_key = None
        await refused("142")


@pytest.mark.parametrize(("version", "status"), [("12.1", "2"), ("14.0", "2"), ("14.1", "1"), ("16.1", "1")])
async def test_device_information_goes_with_provision_from_14_1_on_only(version: str, status: str) -> None:
    policies = PROVISION("Policies", PROVISION("Policy", POLICY_TYPE))
    async with device(version) as ann:
        assert (await ann.post("Provision", PROVISION("Provision", DEVICE, policies))).text("Status") == status
        without = await ann.post("Provision", PROVISION("Provision", policies))
        assert without.text("Status") == ("165" if version >= "14.1" else "1")


async def test_the_temporary_policy_key_is_good_for_the_acknowledgement_only() -> None:
    async with device() as ann:
        policies = PROVISION("Policies", PROVISION("Policy", POLICY_TYPE))
        offer = await ann.post("Provision", PROVISION("Provision", DEVICE, policies))
        temporary = offer.text("Policies", "Policy", "PolicyKey")
        ann.policy_key = temporary
        assert (await ann.folder_sync()).text("Status") == "142"
        ann.policy_key = None
        wrong = await ann.post("Provision", acknowledgement(temporary), headers={"X-MS-PolicyKey": "0"})
        assert wrong.text("Policies", "Policy", "Status") == "5"
        third = await ann.post("Provision", acknowledgement(temporary, "2"), headers={"X-MS-PolicyKey": temporary})
        assert third.text("Status") == "139"


async def test_the_order_within_the_acknowledged_policy_counts() -> None:
    policy = PROVISION("Policy", POLICY_TYPE, PROVISION("Status", "1"), PROVISION("PolicyKey", "1"))
    async with device() as ann:
        answer = await ann.post("Provision", PROVISION("Provision", PROVISION("Policies", policy)))

        assert answer.text("Status") == "2"


async def test_settings_take_device_information() -> None:
    async with device("14.0") as ann:
        await ann.provision()
        answer = await ann.post("Settings", SETTINGS("Settings", DEVICE))
        assert answer.text("DeviceInformation", "Status") == "1"
        assert (await ann.post("Settings", SETTINGS("Settings"))).text("Status") == "2"


async def test_folder_sync_lists_the_default_folders_and_then_what_changed() -> None:
    async with device() as ann:
        await ann.provision()
        first = await ann.folder_sync()
        changes = first.root.find("Changes")
        assert changes is not None
        types = {name_of(each, "DisplayName"): name_of(each, "Type") for each in changes.all("Add")}
        assert types["Inbox"] == "2"
        assert {"4", "5", "7", "8", "9", "10"} < set(types.values())
        folder = ann.simulator.add_folder(ANN, "Projects")
        second = await ann.folder_sync(first.text("SyncKey"))
        assert second.text("Changes", "Add", "ServerId") == folder
        ann.simulator.remove_folder(ANN, folder)
        third = await ann.folder_sync(second.text("SyncKey"))
        assert third.text("Changes", "Delete", "ServerId") == folder
        fourth = await ann.folder_sync(third.text("SyncKey"))
        assert (fourth.text("Changes", "Count"), fourth.text("SyncKey")) == ("0", third.text("SyncKey"))
        assert (await ann.folder_sync("guess")).text("Status") == "9"


def name_of(element: Element, tag: str) -> str:
    found = element.find(tag)
    assert found is not None
    return found.string


@pytest.mark.parametrize(
    "more",
    [
        [AIRSYNC("Options"), AIRSYNC("WindowSize", "10")],
        [AIRSYNC("Class", "Email")],
        [AIRSYNC("GetChanges", "2")],
        [AIRSYNC("WindowSize", "many")],
        [AIRSYNC("WindowSize", "10"), AIRSYNC("WindowSize", "10")],
        [AIRSYNC("Options", AIRSYNC("FilterType", "6"))],
        [AIRSYNC("Options", AIRSYNC("Wait", "1"))],
        [AIRSYNC("Commands")],
        [AIRSYNCBASE("Body")],
    ],
)
async def test_a_sync_that_breaks_the_rules_is_malformed(more: list[Element]) -> None:
    async with device() as ann:
        key = await ann.prime()
        assert (await ann.sync(key, *more)).text("Status") == "4"
        assert (await ann.sync(key)).body == b""


async def test_the_order_of_a_collection_counts() -> None:
    wrong = AIRSYNC("Collection", AIRSYNC("CollectionId", INBOX), AIRSYNC("SyncKey", "0"))
    async with device() as ann:
        await ann.prime()
        answer = await ann.post("Sync", AIRSYNC("Sync", AIRSYNC("Collections", wrong)))

        assert answer.text("Status") == "4"


async def test_a_first_sync_brings_a_key_only_and_may_not_ask_for_changes() -> None:
    async with device() as ann:
        ann.simulator.deliver(ANN)
        await ann.provision()
        assert (await ann.sync("0")).text("Collections", "Collection", "Status") == "12"  # FolderSync comes first
        await ann.folder_sync()
        assert (await ann.sync("0", AIRSYNC("GetChanges"))).text("Status") == "4"
        answer = await ann.sync("0")
        collection = answer.root.children[0].children[0]
        assert [child.tag for child in collection.children] == ["SyncKey", "CollectionId", "Status"]


async def test_the_class_leads_the_collection_before_14_0() -> None:
    async with device("12.1") as ann:
        await ann.provision()
        await ann.folder_sync()
        primed = await ann.sync("0")

        assert primed.text("Collections", "Collection", "Class") == "Email"


@pytest.mark.parametrize("version", ["12.1", "14.1", "16.1"])
async def test_a_mail_travels_with_all_its_content(version: str) -> None:
    async with device(version) as ann:
        key = await ann.prime()
        ann.simulator.deliver(ANN, subject="canary-subject", sender="canary@example.com", body="canary-body")
        answer = await ann.sync(key)
        data = ("Collections", "Collection", "Commands", "Add", "ApplicationData")
        assert answer.text(*data, "Subject") == "canary-subject"
        assert answer.text(*data, "From") == "canary@example.com"
        assert answer.text(*data, "Body", "Data") == "canary-body"
        assert answer.text(*data, "Read") == "0"
        assert (b"ConversationId" in repr(answer.root).encode()) is (version >= "14.1")


def ids(answer: Answer, tag: str = "Add") -> list[str]:
    commands = answer.root.children[0].children[0].find("Commands")
    assert commands is not None
    return [name_of(each, "ServerId") for each in commands.all(tag)]


async def test_windows_and_a_lost_answer() -> None:
    async with device() as ann:
        key = await ann.prime()
        mails = [ann.simulator.deliver(ANN) for _ in range(5)]
        window = AIRSYNC("WindowSize", "3")
        first = await ann.sync(key, window)
        assert ids(first) == mails[:3]
        assert first.root.children[0].children[0].find("MoreAvailable") is not None
        again = await ann.sync(key, window)
        assert ids(again) == mails[:3]
        void, good = (each.text("Collections", "Collection", "SyncKey") for each in (first, again))
        assert void != good
        rest = await ann.sync(good, window)
        assert ids(rest) == mails[3:]
        assert rest.root.children[0].children[0].find("MoreAvailable") is None
        for stale in (void, key, "guess"):
            assert (await ann.sync(stale)).text("Collections", "Collection", "Status") == "3"
        assert (await ann.sync(rest.text("Collections", "Collection", "SyncKey"))).body == b""


async def test_flags_and_deletes_come_as_such() -> None:
    async with device() as ann:
        one, two = ann.simulator.deliver(ANN), ann.simulator.deliver(ANN)
        key = await ann.prime()
        ann.simulator.mark_read(ANN, one)
        ann.simulator.delete(ANN, two)
        answer = await ann.sync(key)

        assert (ids(answer), ids(answer, "Change"), ids(answer, "Delete")) == ([], [one], [two])


async def test_lost_state_is_told_by_status_3_and_9() -> None:
    async with device() as ann:
        key = await ann.prime()
        hierarchy = (await ann.folder_sync()).text("SyncKey")
        ann.simulator.lose_state(ANN)

        assert (await ann.sync(key)).text("Collections", "Collection", "Status") == "3"
        assert (await ann.folder_sync(hierarchy)).text("Status") == "9"


async def test_sync_of_folders_that_are_not_there() -> None:
    async with device() as ann:
        await ann.prime()
        folder = ann.simulator.add_folder(ANN, "Projects")
        ann.simulator.remove_folder(ANN, folder)
        for collection, status in ((folder, "12"), ("77", "8")):
            answer = await ann.post("Sync", sync("0", collection=collection))
            assert answer.text("Collections", "Collection", "Status") == status


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", "3"),
        (PING("Ping", PING("HeartbeatInterval", "60")), "3"),
        (PING("Ping", PING("Folders", PING("Folder", PING("Id", INBOX), PING("Class", "Email")))), "3"),
        (ping(60, INBOX, INBOX), "4"),
        (ping(60, INBOX, cls="Mail"), "4"),
        (PING("Ping", PING("Folders"), PING("HeartbeatInterval", "60")), "4"),
        (PING("Ping", PING("HeartbeatInterval", "soon")), "4"),
        (PING("Ping", PING("HeartbeatInterval", "60"), PING("Folders", PING("Folder", PING("Id", INBOX)))), "4"),
        (ping(59, INBOX), "5"),
        (ping(3541, INBOX), "5"),
        (ping(60, *map(str, range(1, 12))), "6"),
        (ping(60, "77"), "7"),
    ],
)
async def test_pings_that_are_answered_at_once(body: Element | bytes, status: str) -> None:
    async with device(rules=EasRules(max_folders=10)) as ann:
        await ann.prime()
        answer = await ann.post("Ping", body)

        assert answer.text("Status") == status
        if status == "5":
            assert answer.text("HeartbeatInterval") in {"60", "3540"}
        if status == "6":
            assert answer.text("MaxFolders") == "10"


async def test_a_ping_compares_with_the_newest_key_given_out_received_or_not() -> None:
    async with device(rules=EasRules(heartbeat_minimum=1)) as ann:
        key = await ann.prime()
        ann.simulator.deliver(ANN)
        answer = await ann.ping()
        assert (answer.text("Status"), answer.text("Folders", "Folder")) == ("2", INBOX)
        ann.simulator.fail(ANN, FailurePlan(Cut(applied=True), "Sync"))
        with pytest.raises(aiohttp.ClientConnectionError):
            await ann.sync(key)
        assert (await ann.ping(1)).text("Status") == "1"
        assert len(ids(await ann.sync(key))) == 1


async def test_a_ping_without_a_sync_is_answered_at_once_and_noted() -> None:
    async with device() as ann:
        await ann.provision()
        assert (await ann.ping()).text("Status") == "7"
        await ann.folder_sync()
        assert (await ann.ping()).text("Status") == "2"
        assert "a Ping on a collection that was never synced" in {each.text for each in ann.simulator.complaints}


async def test_a_held_ping_ends_with_the_delivery_and_an_empty_one_repeats_it() -> None:
    async with device() as ann:
        key = await ann.prime()
        async with asyncio.TaskGroup() as tasks:
            held = tasks.create_task(ann.ping())
            await until(lambda: ann.simulator.held == 1)
            assert ann.simulator.ping_answered_at == {}
            ann.simulator.deliver(ANN)
        assert held.result().text("Status") == "2"
        assert set(ann.simulator.ping_answered_at) == {ANN}
        await ann.sync(key)
        async with asyncio.TaskGroup() as tasks:
            held = tasks.create_task(ann.post("Ping"))
            await until(lambda: ann.simulator.held == 1)
            ann.simulator.add_folder(ANN, "Projects")
        assert held.result().text("Status") == "7"
        assert (ann.simulator.held, ann.simulator.records.max_held) == (0, 1)


async def test_a_ping_expires_with_its_heartbeat() -> None:
    async with device(rules=EasRules(heartbeat_minimum=1)) as ann:
        await ann.prime()
        began = asyncio.get_running_loop().time()
        assert (await ann.ping(1)).text("Status") == "1"
        assert asyncio.get_running_loop().time() - began >= 1.0


async def test_a_second_ping_ends_the_first_and_is_counted() -> None:
    async with device() as ann:
        await ann.prime()
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(ann.ping())
            await until(lambda: ann.simulator.held == 1)
            second = tasks.create_task(ann.ping())
            await until(first.done)
            await until(lambda: ann.simulator.held == 1)
            ann.simulator.deliver(ANN)
        assert (first.result().text("Status"), second.result().text("Status")) == ("1", "2")
        assert ann.simulator.overlaps(ANN) == 1


async def test_a_client_that_hangs_up_holds_no_ping_and_overlaps_with_none() -> None:
    async with device() as ann:
        await ann.prime()
        gone = asyncio.get_running_loop().create_task(ann.ping())
        await until(lambda: ann.simulator.held == 1)
        gone.cancel()
        await until(lambda: ann.simulator.held == 0)
        ann.simulator.deliver(ANN)
        assert (await ann.ping()).text("Status") == "2"
        assert ann.simulator.overlaps(ANN) == 0


async def test_a_ping_that_queued_until_its_client_was_gone_overlaps_with_none() -> None:
    personality = replace(EasRules().personality, notices_hang_up=False)
    async with device(rules=EasRules(personality=personality, workers=2)) as ann:
        await ann.prime()
        ann.simulator.resize(0)
        gone = asyncio.get_running_loop().create_task(ann.ping())
        await until(lambda: ann.simulator.workers.queued == 1)
        gone.cancel()
        following = asyncio.get_running_loop().create_task(ann.ping())
        await until(lambda: ann.simulator.workers.queued == 2)

        ann.simulator.resize(2)
        await until(lambda: ann.simulator.held == 1)
        ann.simulator.deliver(ANN)
        assert (await following).text("Status") == "2"
        assert ann.simulator.overlaps(ANN) == 0


async def test_a_ping_with_another_class_watches_nothing() -> None:
    async with device(rules=EasRules(heartbeat_minimum=1)) as ann:
        await ann.prime()
        ann.simulator.deliver(ANN)
        answer = await ann.post("Ping", ping(1, INBOX, cls="Calendar"))

        assert answer.text("Status") == "1"
        assert ann.simulator.complaints


async def test_a_quarantined_device_sees_nothing_until_it_is_released() -> None:
    async with device(rules=EasRules(heartbeat_minimum=1)) as ann:
        key = await ann.prime()
        ann.simulator.quarantine(ANN)
        ann.simulator.deliver(ANN)
        assert (await ann.ping(1)).text("Status") == "1"
        assert (await ann.sync(key)).body == b""
        ann.simulator.quarantine(ANN, quarantined=False)
        assert (await ann.ping(1)).text("Status") == "2"


@pytest.mark.parametrize("account_only", [False, True])
async def test_a_wipe_is_asked_for_until_it_is_acknowledged(account_only: bool) -> None:
    tag = "AccountOnlyRemoteWipe" if account_only else "RemoteWipe"
    async with device("16.1") as ann:
        await ann.prime()
        ann.simulator.wipe(ANN, account_only=account_only)
        assert (await ann.folder_sync()).text("Status") == "140"
        asked = await ann.post("Provision", PROVISION("Provision"))
        assert [child.tag for child in asked.root.children] == ["Status", tag]
        done = PROVISION("Provision", PROVISION(tag, PROVISION("Status", "1")))
        assert (await ann.post("Provision", done)).text("Status") == "1"
        assert (await ann.folder_sync()).text("Status") == "129"
        assert not ann.simulator.complaints


async def test_failures_happen_as_often_as_planned_to_those_they_are_meant_for() -> None:
    async with device() as ann:
        await ann.provision()
        ann.simulator.fail("ben@example.com", FailurePlan(AnswerHttp(500)))
        ann.simulator.fail(None, FailurePlan(AnswerHttp(503, {"Retry-After": "1.5"}), "FolderSync", times=2))
        ann.simulator.fail(ANN, FailurePlan(Garble(), "FolderSync"))
        for _ in range(2):
            answer = await ann.folder_sync()
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1.5")
        garbled, good = await ann.folder_sync(), await ann.folder_sync()
        assert (garbled.status, good.status) == (200, 200)
        assert 0 < len(garbled.body) < len(good.body)
        assert good.text("Status") == "1"


async def test_closing_ends_held_and_stalled_requests_at_once() -> None:
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession() as session:
        async with open_eas_simulator(tls=None) as simulator:
            simulator.add_mailbox(ANN, PASSWORD)
            ann = Device(session, simulator)
            await ann.prime()
            simulator.fail(ANN, FailurePlan(Stall(), "Sync"))
            waiting: list[asyncio.Task[Any]] = [loop.create_task(ann.ping()), loop.create_task(ann.sync("0"))]
            await until(lambda: simulator.held == 1 and simulator.records.requests["Sync"] == 3)
            began = loop.time()
        assert loop.time() - began < 3.0  # aiohttp's own shutdown timeout is longer
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, aiohttp.ClientError) for result in results)


async def test_nobody_can_be_delivered_to_who_has_no_mailbox() -> None:
    async with device() as ann:
        for wrong in (
            lambda: ann.simulator.deliver("nobody@example.com"),
            lambda: ann.simulator.delete(ANN, "5:99"),  # type: ignore[arg-type]
            lambda: ann.simulator.remove_folder(ANN, CollectionId("77")),
        ):
            with pytest.raises(LookupError):
                wrong()
