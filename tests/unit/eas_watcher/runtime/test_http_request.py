from urllib.parse import parse_qsl, quote, urlsplit

import pytest

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.autodiscover.search import Lookup
from eas_watcher.commands.folder_sync import FolderSync
from eas_watcher.commands.options import Options
from eas_watcher.commands.ping import Ping
from eas_watcher.commands.provision import Provision
from eas_watcher.commands.request import Command, HttpReply
from eas_watcher.names import (
    USER_AGENT,
    CollectionClass,
    CollectionId,
    DeviceId,
    MailboxId,
    PolicyKey,
    ProtocolVersion,
    SyncKey,
)
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.http_request import CONTENT_TYPE, LOOKUP_PATIENCE, PATIENCE, compose, compose_lookup

URL = "https://mail.example.com/Microsoft-Server-ActiveSync"
V14_1 = ProtocolVersion.V14_1
KEY = PolicyKey("42")
FOLDER_SYNC = FolderSync(SyncKey("1"))
PING = Ping(600, ((CollectionId("5"), CollectionClass.EMAIL),))


def account(user: str = "ann@example.com") -> Account:
    return Account(MailboxId("m1"), URL, user, DeviceId("abc123"), BasicCredential(user, "secret"))


class Bodiless(Command[None]):
    name = "GetAttachment"

    def encode(self, version: ProtocolVersion) -> bytes:
        return b""

    def read(self, reply: HttpReply) -> None:
        return None


def test_options_asks_the_bare_url_without_a_version() -> None:
    request = compose(account(), Options(), V14_1, KEY)

    assert (request.method, request.url, request.body, request.deadline) == ("OPTIONS", URL, b"", PATIENCE)
    assert request.headers == {
        "Authorization": BasicCredential("ann@example.com", "secret").authorization(),
        "User-Agent": "PushRelay/1",
    }


def test_without_a_version_nothing_but_options_can_be_asked() -> None:
    assert compose(account(), FOLDER_SYNC, None, None).method == "OPTIONS"


def test_a_command_goes_out_with_its_body_and_headers() -> None:
    request = compose(account(), FOLDER_SYNC, V14_1, KEY)

    assert (request.method, request.body, request.deadline) == ("POST", FOLDER_SYNC.encode(V14_1), PATIENCE)
    assert request.headers == {
        "Authorization": BasicCredential("ann@example.com", "secret").authorization(),
        "User-Agent": "PushRelay/1",
        "MS-ASProtocolVersion": "14.1",
        "Content-Type": CONTENT_TYPE,
        "X-MS-PolicyKey": "42",
    }


@pytest.mark.parametrize("user", ["ann@example.com", "EXAMPLE\\ann", "änn & ben=+?#/%", "a b"])
def test_the_query_names_command_user_and_device(user: str) -> None:
    url = urlsplit(compose(account(user), FOLDER_SYNC, V14_1, None).url)

    assert f"{url.scheme}://{url.netloc}{url.path}" == URL
    assert url.fragment == ""
    assert "+" not in url.query, "a plus sign is no space to every server"
    assert dict(parse_qsl(url.query, strict_parsing=True)) == {
        "Cmd": "FolderSync",
        "User": user,
        "DeviceId": "abc123",
        "DeviceType": "PushRelay",
    }


def test_a_command_without_a_body_has_no_content_type() -> None:
    assert "Content-Type" not in compose(account(), Bodiless(), V14_1, None).headers


def test_without_a_policy_no_policy_key_is_sent() -> None:
    assert "X-MS-PolicyKey" not in compose(account(), FOLDER_SYNC, V14_1, None).headers


def test_a_ping_carries_no_policy_key_and_may_take_longer_than_its_heartbeat() -> None:
    request = compose(account(), PING, V14_1, KEY)

    assert "X-MS-PolicyKey" not in request.headers
    assert request.deadline == 600 * 1.1 + 30


def test_provision_carries_its_own_policy_key() -> None:
    assert compose(account(), Provision(PolicyKey("7")), V14_1, KEY).headers["X-MS-PolicyKey"] == "7"


def test_sends_back_cookies_when_there_are_any() -> None:
    assert compose(account(), FOLDER_SYNC, V14_1, None, "a=1; b=2").headers["Cookie"] == "a=1; b=2"
    assert compose(account(), Options(), None, None, "a=1").headers["Cookie"] == "a=1"


def test_a_url_where_the_mailbox_is_replaces_that_of_the_account() -> None:
    there = "https://mail2.example.com/eas"

    assert compose(account(), Options(), None, None, "", there).url == there
    assert compose(account(), FOLDER_SYNC, V14_1, None, "", there).url.startswith(f"{there}?Cmd=FolderSync&")


def test_a_question_to_autodiscover_shows_the_credential_only_if_it_needs_it() -> None:
    url = "https://autodiscover.example.com/autodiscover/autodiscover.xml"

    first = compose_lookup(Lookup("GET", url), account())
    second = compose_lookup(Lookup("POST", url, b"<a/>", credential=True), account())

    assert (first.method, first.url, first.headers, first.body) == ("GET", url, {"User-Agent": USER_AGENT}, b"")
    assert (second.method, second.body) == ("POST", b"<a/>")
    assert second.headers["Authorization"] == account().credential.authorization()
    assert second.headers["Content-Type"] == "text/xml; charset=utf-8"
    assert (first.deadline, second.deadline) == (LOOKUP_PATIENCE, LOOKUP_PATIENCE)


@pytest.mark.parametrize(
    "user", ["ann@example.com", "EXAMPLE\\ann", "ann+calls@example.com", "\u00e4nn", "a/b&c=d", "a~b_c.d-e"]
)
def test_each_user_is_quoted_as_a_query_wants_it(user: str) -> None:
    url = compose(account(user), FOLDER_SYNC, V14_1, KEY).url

    assert f"&User={quote(user, safe='')}&" in url
