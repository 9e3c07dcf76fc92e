"""The relay's log as CEF, made by Debian's rsyslog with the shipped configuration."""

import asyncio
import contextlib
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from unittest.mock import ANY

import pytest

from tests.interop.packages import Unavailable, install, unavailable
from tests.interop.sogo.daemon import Daemon
from tests.ports import free_port
from tests.site import ANN, PASSWORD, open_site

ROOT: Final = Path(__file__).parents[2]
SHIPPED: Final = ROOT / "config" / "rsyslog-cef.conf"
SCRIPT: Final = ROOT / "config" / "siem-events.sh"
TRIGGERS: Final = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'act'"
HEAD: Final = """
global(workDirectory="{folder}" maxMessageSize="64k")
module(load="imtcp")
input(type="imtcp" address="127.0.0.1" port="{port}")
"""
CEF: Final = re.compile(r"^\S+ \S+ CEF:0\|push-relay\|push-relay\|1\|([a-z-]+)\|([^|]+)\|(\d+)\|(.*)$")
PAIR: Final = re.compile(r"(?:^| )(\w+)=((?:[^\\=]|\\.)*?)(?= \w+=|$)")
"""A field of an extension: in its value, = and \\ stand behind a backslash."""
LIMIT: Final = 30.0  # seconds


class Collector:
    """rsyslog with the shipped configuration between a relay and a SIEM, both played by the test."""

    def __init__(self, folder: Path) -> None:
        """Listen as the SIEM; `folder` gets rsyslog's files."""
        self._siem = socket.create_server(("127.0.0.1", 0))
        self._siem.settimeout(LIMIT)
        self._received = b""
        self._connection: socket.socket | None = None
        self._port = free_port()
        text = SHIPPED.read_text()
        target = 'target="siem.example.com" port="514"'
        assert target in text
        text = text.replace(target, f'target="127.0.0.1" port="{self._siem.getsockname()[1]}"')
        configuration = folder / "rsyslog.conf"
        configuration.write_text(HEAD.format(folder=folder, port=self._port) + text)
        command = ("rsyslogd", "-n", "-f", str(configuration), "-i", str(folder / "rsyslog.pid"))
        self._daemon = Daemon("rsyslogd", lambda _: None, command, folder / "rsyslog.log", folder, self._port)

    def start(self) -> None:
        """Start rsyslog."""
        self._daemon.start()

    def stop(self) -> None:
        """End rsyslog, and both connections."""
        self._daemon.stop()
        self._siem.close()
        if self._connection is not None:
            self._connection.close()

    @property
    def logger(self) -> str:
        """The command by which siem-events.sh reaches rsyslog."""
        return f"logger --server 127.0.0.1 --port {self._port} --tcp --rfc3164 --tag push-relay --size 16KiB"

    def log(self, *lines: dict[str, Any] | str, tag: str = "relay[7]") -> None:
        """Send lines of a relay's log."""
        texts = [line if isinstance(line, str) else json.dumps(line, sort_keys=True) for line in lines]
        with socket.create_connection(("127.0.0.1", self._port)) as sender:
            sender.sendall("".join(f"<30>Nov 29 21:00:00 host {tag}: {text}\n" for text in texts).encode())

    def events(self, until: str) -> list[tuple[str, str, int, dict[str, str]]]:
        """Return id, name, severity and fields of all events up to one that has `until` as its id."""
        found: list[tuple[str, str, int, dict[str, str]]] = []
        deadline = time.monotonic() + LIMIT
        while not found or found[-1][0] != until:
            assert time.monotonic() < deadline
            found.append(self._event())
        return found

    def _event(self) -> tuple[str, str, int, dict[str, str]]:
        if self._connection is None:
            self._connection, _ = self._siem.accept()
            self._connection.settimeout(LIMIT)
        while b"\n" not in self._received:
            more = self._connection.recv(65536)
            assert more, "rsyslog closed its connection"
            self._received += more
        line, _, self._received = self._received.partition(b"\n")
        match = CEF.match(line.decode())
        assert match is not None, line
        fields = dict(PAIR.findall(match[4]))
        return match[1], match[2], int(match[3]), {name: unescaped(value) for name, value in fields.items()}


def unescaped(value: str) -> str:
    """Read a value of an extension."""
    return re.sub(r"\\(.)", lambda found: {"n": "\n", "r": "\r"}.get(found[1], found[1]), value)


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    try:
        install("rsyslog")
    except Unavailable as reason:
        unavailable(reason)
    made = Collector(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def line(event: str, **fields: Any) -> dict[str, Any]:
    """Return a line of the relay's log."""
    known = {"timestamp": "2026-11-29T21:00:00.000+00:00", "level": "warning", "logger": "relay.test"}
    return {**known, "event": event, **fields}


def test_events_for_a_siem_are_sent_and_others_are_not(collector: Collector) -> None:
    collector.log(
        line("watch waits", mailbox="m1", reason="unreachable"),
        line("admin token refused", address="192.0.2.7"),
        'a line that is no JSON, about an "event"',
        line("watch ended", mailbox="m1", state="wiped", reason="remote-wipe"),
        line("credential of an app not taken", account="00ff", reason="too-many", mailbox=None),
    )
    collector.log(line("relay stops"), tag="other[1]")
    collector.log(line("audit verification failed", detail="line 7"), tag="push-relay")

    assert collector.events("audit-verification-failed") == [
        ("admin-token-refused", "admin token refused", 8, {"cat": "administration", "src": "192.0.2.7"}),
        (
            *("watch-ended", "watch ended", 6),
            {
                "cat": "credentials",
                "duid": "m1",
                "reason": "remote-wipe",
                "cs4Label": "watchState",
                "cs4": "wiped",
            },
        ),
        (
            *("app-credential-not-taken", "credential of an app not taken", 5),
            {"cat": "credentials", "reason": "too-many", "cs1Label": "accountHash", "cs1": "00ff"},
        ),
        ("audit-verification-failed", "audit verification failed", 10, {"cat": "audit", "msg": "line 7"}),
    ]


@pytest.mark.parametrize(
    "hostile",
    [
        "x src=198.51.100.1",
        "x\\",
        "x\\ src=198.51.100.1",
        "\\n\\=\\\\",
        "x\nCEF:0|push-relay|push-relay|1|relay-stopped|relay stops|3|",
        "x\r\nNov 29 21:00:00 host CEF:0|a|b|1|c|d|9|",
        "a|b|c",
        "%$!event% ${severity}",
        "ü € \u2028 x",
    ],
)
def test_no_value_becomes_a_field_or_an_event(collector: Collector, hostile: str) -> None:
    collector.log(line("egress log changed by somebody else", detail=hostile, folder="/var/lib/x"), line("relay stops"))

    changed, stopped = collector.events("relay-stopped")

    assert changed[3] == {"cat": "audit", "msg": hostile, "filePath": "/var/lib/x"}
    assert stopped[3] == {"cat": "availability"}


def test_control_characters_are_left_out(collector: Collector) -> None:
    collector.log(line("egress log changed by somebody else", detail="a\x1b[2Jb\x07c"), line("relay stops"))

    (changed, _) = collector.events("relay-stopped")

    assert changed[3]["msg"] == "a[2Jbc"


def test_a_large_traceback_costs_no_event(collector: Collector) -> None:
    large = line("egress log changed by somebody else", exception="x\n" * 10_000, detail="y")
    collector.log(large, line("relay stops"))

    assert [event[0] for event in collector.events("relay-stopped")] == ["egress-log-changed", "relay-stopped"]


async def test_acts_and_failed_verifications_are_told_once(collector: Collector, tmp_path: Path) -> None:
    install("jq", "bsdutils")
    told, relay = tmp_path / "told", tmp_path / "relay"
    relay.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m relay "$@"\n')
    relay.chmod(0o755)
    async with open_site(tmp_path / "sandbox") as site:
        site.sandbox.eas.add_mailbox(ANN, PASSWORD)
        options = ("--config", str(site.sandbox.toml))

        async def run(*command: str) -> tuple[int, str]:
            environ = {**os.environ, "RELAY": str(relay), "LOGGER": collector.logger}
            process = await asyncio.create_subprocess_exec(
                *command, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            said, _ = await process.communicate()
            return process.returncode or 0, said.decode()

        async with site.relay():
            status, _ = await site.register()
            assert status == HTTPStatus.CREATED
            assert await run(str(relay), "mailboxes", "pause", ANN, *options) == (0, ANY)
            assert await run(str(SCRIPT), "acts", str(told), *options) == (0, "")
            assert await run(str(relay), "mailboxes", "resume", ANN, *options) == (0, ANY)
            assert await run(str(SCRIPT), "acts", str(told), *options) == (0, "")
        assert await run(str(SCRIPT), "acts", str(told), *options) == (0, "")
        assert await run(str(SCRIPT), "audit", *options) == (0, "")
        assert await run(str(SCRIPT), "egress", *options) == (0, "")
        with contextlib.closing(sqlite3.connect(site.sandbox.toml.parent / "state" / "relay.sqlite3")) as database:
            for (name,) in database.execute(TRIGGERS).fetchall():
                database.execute(f"DROP TRIGGER {name}")
            database.execute("UPDATE act SET who = 'nobody' WHERE number = 1")
            database.commit()
        assert await run(str(SCRIPT), "audit", *options) == (0, "")

    *acts, failed = await asyncio.to_thread(collector.events, "audit-verification-failed")
    assert [(fields["act"], "cs5" in fields) for _, _, _, fields in acts] == [
        ("mailbox.pause", True),
        ("mailbox.resume", True),
    ]
    assert ANN not in str(acts)
    assert failed[3]["msg"].startswith("administrative acts: ")


@pytest.mark.parametrize("faults", [1, 20_000])
def test_a_failed_verification_is_told_however_many_lines_it_names(tmp_path: Path, faults: int) -> None:
    """Somebody who spoils many lines must not keep the event back by it."""
    install("jq")
    relay, sent = tmp_path / "relay", tmp_path / "sent"
    relay.write_text(f"#!/bin/sh\nseq -f 'egress.jsonl:%.0f does not follow the line before' {faults}\nexit 1\n")
    relay.chmod(0o755)
    environ = {**os.environ, "RELAY": str(relay), "LOGGER": f"tee {sent}"}

    subprocess.run([str(SCRIPT), "egress"], env=environ, check=True, stdout=subprocess.DEVNULL)

    event = json.loads(sent.read_text())
    assert event["event"] == "audit verification failed"
    assert event["detail"].startswith("egress log: egress.jsonl:1 does not follow")
    assert len(sent.read_bytes()) < 16_384, "logger cuts a longer one, which is no JSON then"


def test_rsyslog_finds_no_fault_in_the_configuration(collector: Collector) -> None:
    checked = subprocess.run(["rsyslogd", "-N1", "-f", str(SHIPPED)], capture_output=True, text=True, check=False)

    assert checked.returncode == 0
    assert "error" not in checked.stderr
