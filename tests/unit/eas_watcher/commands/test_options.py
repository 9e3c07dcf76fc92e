import pytest

from eas_watcher.commands.options import Capabilities, Options, choose_version
from eas_watcher.commands.request import HttpReply
from eas_watcher.errors import ProtocolViolation, VersionRefused
from eas_watcher.names import ProtocolVersion

EXCHANGE = {
    "ms-asprotocolversions": "2.0,2.1,2.5,12.0,12.1,14.0,14.1,16.0,16.1",
    "ms-asprotocolcommands": "Sync,SendMail,FolderSync,Ping,Provision,Settings",
}


def offer(versions: str, commands: str = "Sync") -> Capabilities:
    headers = {"ms-asprotocolversions": versions, "ms-asprotocolcommands": commands}
    return Options().read(HttpReply(200, headers, b""))


def test_sends_no_body_and_no_policy_key() -> None:
    assert Options().encode(ProtocolVersion.V16_1) == b""
    assert not Options.carries_policy_key
    assert Options.name == ""


def test_reads_versions_and_commands() -> None:
    assert Options().read(HttpReply(200, EXCHANGE, b"")) == Capabilities(
        versions=tuple(ProtocolVersion),
        commands=frozenset({"Sync", "SendMail", "FolderSync", "Ping", "Provision", "Settings"}),
        unknown=("12.0", "2.0", "2.1", "2.5"),
    )


def test_reads_headers_that_came_twice() -> None:
    assert offer("14.1, 16.1,14.1, 16.1", "Sync,Ping, Ping,Sync") == Capabilities(
        (ProtocolVersion.V14_1, ProtocolVersion.V16_1), frozenset({"Sync", "Ping"})
    )


def test_a_server_may_name_no_commands() -> None:
    assert Options().read(HttpReply(200, {"ms-asprotocolversions": "14.1"}, b"")) == Capabilities(
        (ProtocolVersion.V14_1,), frozenset()
    )


def test_an_answer_without_versions_does_not_come_from_an_activesync_server() -> None:
    with pytest.raises(ProtocolViolation, match="not an ActiveSync server"):
        Options().read(HttpReply(200, {"ms-asprotocolcommands": "Sync"}, b""))


@pytest.mark.parametrize(
    ("allowed", "chosen"),
    [
        (tuple(ProtocolVersion), ProtocolVersion.V16_1),
        ((ProtocolVersion.V12_1, ProtocolVersion.V14_1), ProtocolVersion.V14_1),
    ],
)
def test_chooses_the_highest_common_version(allowed: tuple[ProtocolVersion, ...], chosen: ProtocolVersion) -> None:
    assert choose_version(Options().read(HttpReply(200, EXCHANGE, b"")), allowed) is chosen


def test_a_refusal_names_what_was_offered() -> None:
    with pytest.raises(VersionRefused, match=r"offers 12\.0, 2\.5, 14\.1$"):
        choose_version(offer("2.5,12.0,14.1"), (ProtocolVersion.V16_1,))


@pytest.mark.parametrize("versions", ["", "canary,<b>1.0</b>"])
def test_a_refusal_never_quotes_a_text_that_is_not_a_version(versions: str) -> None:
    with pytest.raises(VersionRefused, match=r"offers none$"):
        choose_version(offer(versions, "<script>"), tuple(ProtocolVersion))


def test_commands_are_words() -> None:
    assert offer("14.1", "Sync,<script>,").commands == frozenset({"Sync"})
