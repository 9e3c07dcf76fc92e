"""Mails over SMTP: to the sandbox's mail server over TLS, and what is said when it does not take them."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes
from pathlib import Path

import pytest

from relay.domain.canary import Submission
from relay.sandbox.certificates import ThrowAwayCa
from relay.sandbox.smtp import PASSWORD, USER, SmtpSimulator, open_smtp_simulator
from relay.watch import submission
from relay.watch.submission import SUBJECT, NotTaken, greet, submit

AT = datetime(2026, 11, 29, 12, tzinfo=UTC)


class Boxes:
    def __init__(self) -> None:
        self.delivered: list[tuple[str, str]] = []

    def deliver(self, recipient: str, subject: str) -> None:
        if recipient != "canary@example.com":
            raise KeyError(recipient)
        self.delivered.append((recipient, subject))


@asynccontextmanager
async def serving(tmp_path: Path, boxes: Boxes) -> AsyncIterator[tuple[SmtpSimulator, Submission]]:
    ca = ThrowAwayCa()
    file = tmp_path / "ca.pem"
    ca.write_ca(file)
    async with open_smtp_simulator(tls=ca.server_context("localhost"), deliver=boxes.deliver) as server:
        to = Submission(
            "localhost", server.port, "starttls", "relay@example.com", "canary@example.com", file, USER, PASSWORD
        )
        yield server, to


async def test_a_mail_is_handed_over_after_tls_and_a_login(tmp_path: Path) -> None:
    boxes = Boxes()
    async with serving(tmp_path, boxes) as (server, to):
        await submit(to, "an-identity", AT)

    assert boxes.delivered == [("canary@example.com", SUBJECT)]
    [raw] = server.mails
    mail = message_from_bytes(raw)
    assert (mail["From"], mail["To"]) == ("relay@example.com", "canary@example.com")
    assert mail["Message-ID"] == "<an-identity@example.com>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Date"] == "Sun, 29 Nov 2026 12:00:00 +0000"


async def test_why_a_mail_is_not_taken_is_told_without_what_the_server_says(tmp_path: Path) -> None:
    async with serving(tmp_path, Boxes()) as (server, to):
        wrong = await refusal(replace(to, password="wrong"))
        assert (str(wrong), wrong.credential) == ("login-refused-535", True)
        stranger = await refusal(replace(to, recipient="nobody@example.com"))
        assert (str(stranger), stranger.credential) == ("smtp-550", False)
        assert str(await refusal(replace(to, user=""))) == "smtp-530"
        server.refusing = "450 a secret of the server"
        assert str(await refusal(to)) == "recipient-refused-450"
        assert str(await refusal(replace(to, ca_file=None))).startswith("certificate: ")
        assert str(await refusal(replace(to, tls="tls"))) == "unreachable: SSLError"
        assert str(await refusal(replace(to, tls="none"))) == "offers-no-login"
    assert str(await refusal(to)) == "unreachable: ConnectionRefusedError"


async def test_a_refused_password_is_shown_once_whatever_logins_are_offered(tmp_path: Path) -> None:
    async with serving(tmp_path, Boxes()) as (server, to):
        server.mechanisms = "GSSAPI NTLM LOGIN PLAIN CRAM-MD5"
        assert str(await refusal(replace(to, password="wrong"))) == "login-refused-535"
        assert server.logins == 1

        server.mechanisms = "NTLM LOGIN"
        assert str(await refusal(replace(to, password="wrong"))) == "login-refused-535"
        assert server.logins == 2

        server.mechanisms = "GSSAPI NTLM"
        assert str(await refusal(to)) == "offers-no-login"
        assert server.logins == 2


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
async def test_user_and_password_may_have_any_characters(tmp_path: Path, mechanism: str) -> None:
    boxes = Boxes()
    async with serving(tmp_path, boxes) as (server, to):
        server.mechanisms, server.user, server.password = mechanism, "Jürgen", "pässwört €"
        await submit(replace(to, user=server.user, password=server.password), "an-identity", AT)

    assert len(boxes.delivered) == 1


async def refusal(to: Submission) -> NotTaken:
    with pytest.raises(NotTaken) as refused:
        await submit(to, "an-identity", AT)
    return refused.value


@asynccontextmanager
async def saying(greeting: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Serve what says one thing to every command; yield its port, and all that it was sent."""
    said: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        while line := await reader.readline():
            said.append(line)
            writer.write(b"250 ok\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1], said


async def test_tls_from_the_first_byte_on(tmp_path: Path) -> None:
    ca = ThrowAwayCa()
    ca.write_ca(tmp_path / "ca.pem")
    to = Submission("127.0.0.1", 0, "tls", "relay@example.com", "canary@example.com", tmp_path / "ca.pem")
    async with saying(b"421 full\r\n", ca.server_context("localhost")) as (port, _):
        assert str(await refusal(replace(to, port=port))) == "smtp-421"


async def test_a_server_without_starttls_gets_neither_password_nor_mail() -> None:
    to = Submission("127.0.0.1", 0, "starttls", "relay@example.com", "canary@example.com", None, USER, PASSWORD)
    async with saying(b"220 ready\r\n") as (port, said):
        assert str(await refusal(replace(to, port=port))) == "offers-no-starttls"

    assert said == [b"ehlo example.com\r\n"]


def test_a_silent_server_costs_a_bounded_time() -> None:
    assert submission.SECONDS <= 30


@pytest.mark.parametrize("answer", [b"2", b"250-more\r\n" * 1000], ids=["slow", "endless"])
async def test_a_server_that_answers_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    """Each byte comes within the time of one step, and no line is too long: the whole has its limits, too."""
    monkeypatch.setattr(submission, "LIMIT", 1.5)
    given_up = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, RuntimeError):  # uvloop says with the second that the connection has ended
            writer.write(b"220 ready\r\n")
            while not reader.at_eof():
                writer.write(answer)
                await writer.drain()
                await asyncio.sleep(0.01 if len(answer) > 1 else 0.1)
        given_up.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        to = Submission("127.0.0.1", server.sockets[0].getsockname()[1], "none", "r@example.com", "c@example.com")
        assert str(await asyncio.wait_for(refusal(to), 10)) == "unreachable: SMTPServerDisconnected"
        await asyncio.wait_for(given_up.wait(), 10)


async def test_what_the_server_says_at_the_end_is_of_no_interest() -> None:
    async with saying(b"220 ready\r\n") as (port, said):  # and 250 to QUIT
        to = Submission("127.0.0.1", port, "none", "relay@example.com", "canary@example.com")
        await greet(to, 5.0)

    assert said == [b"ehlo example.com\r\n", b"quit\r\n"]
