"""The simulated mail server's way in: SMTP with STARTTLS and a login, for the mails that a relay sends to itself.

It takes what the relay's own client sends [RFC 5321, 3207, 4954]; of a mail only its subject is kept.
"""

import asyncio
import base64
import binascii
import hmac
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from email import message_from_bytes
from typing import Final

LARGEST: Final = 65_536
"""Bytes of a line, and of a mail."""
PATIENCE: Final = 30.0
"""Seconds that a client may be silent."""
USER: Final = "relay"
PASSWORD: Final = "sandbox-smtp"

Deliver = Callable[[str, str], object]
"""Gets recipient and subject; raises KeyError for an unknown recipient."""


class SmtpSimulator:
    """A mail server that takes mails after STARTTLS and a login, or says no as it is told."""

    def __init__(self, tls: ssl.SSLContext, deliver: Deliver) -> None:
        self.port = 0
        self.mails: list[bytes] = []
        """What was taken, oldest first."""
        self.logins = 0
        """How often a password was shown."""
        self.refusing = ""
        """The answer to every recipient, e.g. "450 try later"; empty: they are taken."""
        self.mechanisms = "PLAIN"
        """The kinds of login that are offered: PLAIN and LOGIN are spoken."""
        self.losing = False
        """Whether mails are taken and lost."""
        self.user, self.password = USER, PASSWORD
        self._tls = tls
        self._deliver = deliver

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until it quits."""
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            await _Session(self, reader, writer).run()
        writer.close()

    async def start_tls(self, writer: asyncio.StreamWriter) -> None:
        """Begin TLS on a connection."""
        await writer.start_tls(self._tls)

    def admits(self, response: str) -> bool:
        """Return True if a client's initial response to AUTH PLAIN is that of the user [RFC 4616]."""
        return self._knows(response, f"\0{self.user}\0{self.password}")

    def admits_login(self, user: str, password: str) -> bool:
        """Return True if a client's two responses to AUTH LOGIN are those of the user [MS-XLOGIN 2.2.1]."""
        return self._knows(password, self.password) and _read(user) == self.user.encode()

    def _knows(self, response: str, expected: str) -> bool:
        self.logins += 1
        return hmac.compare_digest(_read(response) or b"", expected.encode())

    def take(self, recipient: str, mail: bytes) -> bool:
        """Deliver a mail; return False if there is no such mailbox."""
        self.mails.append(mail)
        if self.losing:
            return True
        try:
            self._deliver(recipient, str(message_from_bytes(mail)["Subject"]))
        except KeyError:
            return False
        return True


class _Session:
    def __init__(self, server: SmtpSimulator, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._encrypted = False
        self._known = False
        self._recipient = ""

    async def run(self) -> None:
        await self._say("220 sandbox ESMTP")
        while True:
            verb, _, rest = (await self._line()).partition(" ")
            match verb.upper():
                case "EHLO":
                    await self._say(
                        "250-sandbox", f"250 AUTH {self._server.mechanisms}" if self._encrypted else "250 STARTTLS"
                    )
                case "STARTTLS" if not self._encrypted:
                    await self._say("220 go ahead")
                    await self._server.start_tls(self._writer)
                    self._encrypted = True
                case "AUTH" if self._encrypted:
                    self._known = await self._login(*rest.split(" ", 1))
                    await self._say("235 welcome" if self._known else "535 wrong user or password")
                case "MAIL" if self._known:
                    await self._say("250 ok")
                case "RCPT" if self._known:
                    self._recipient = rest.partition("<")[2].partition(">")[0]
                    await self._say(self._server.refusing or "250 ok")
                case "DATA" if self._recipient:
                    await self._say("354 go on")
                    mail = (await self._until(b"\r\n.\r\n")).removesuffix(b".\r\n")
                    taken = self._server.take(self._recipient, mail)
                    await self._say("250 taken" if taken else "550 no such mailbox")
                case "RSET" | "NOOP":
                    await self._say("250 ok")
                case "QUIT":
                    await self._say("221 bye")
                    return
                case _:
                    await self._say("530 authentication required" if not self._known else "503 bad sequence")

    async def _login(self, mechanism: str, response: str = "") -> bool:
        if mechanism == "PLAIN":
            return self._server.admits(response)
        await self._say("334 UGFzc3dvcmQ6")  # "Password:" in base64
        return self._server.admits_login(response, await self._line())

    async def _line(self) -> str:
        return (await self._until(b"\r\n")).decode("ascii", "replace").strip()

    async def _until(self, end: bytes) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self._reader.readuntil(end)

    async def _say(self, *lines: str) -> None:
        self._writer.write("".join(f"{line}\r\n" for line in lines).encode("ascii"))
        await self._writer.drain()


def _read(response: str) -> bytes | None:
    """Return what a client said in base64; None: that it is none."""
    try:
        return base64.b64decode(response, validate=True)
    except binascii.Error:
        return None


@asynccontextmanager
async def open_smtp_simulator(
    *, tls: ssl.SSLContext, deliver: Deliver, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[SmtpSimulator]:
    """Serve until the block ends; port 0 takes a free one."""
    simulator = SmtpSimulator(tls, deliver)
    server = await asyncio.start_server(simulator.serve, host, port, limit=LARGEST)
    simulator.port = server.sockets[0].getsockname()[1]
    async with server:
        yield simulator
