"""A server for benches in the place of Google, in a process of its own: it accepts every push and issues every token.

Writes its CA and a service account into the folder given, then prints its port.
"""

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import cast

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from relay.sandbox.certificates import ThrowAwayCa, make_service_account

PROJECT = "bench"
LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


def answer(document: dict[str, object]) -> bytes:
    body = json.dumps(document).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=UTF-8\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


PUSHED = answer({"name": f"projects/{PROJECT}/messages/0:1500415314455276%31bd1c9631bd1c96"})
TOKEN = answer({"access_token": "ya29." + "a" * 200, "expires_in": 3599, "token_type": "Bearer"})


class Google(asyncio.Protocol):
    """A server that answers whole requests and reads none of them."""

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            found = LENGTH.search(self._buffer, 0, end) if end >= 0 else None
            whole = end + 4 + int(found[1]) if found else None
            if whole is None or len(self._buffer) < whole:
                return
            self._transport.write(TOKEN if self._buffer.startswith(b"POST /token") else PUSHED)
            self._buffer = self._buffer[whole:]


async def serve(folder: Path) -> None:
    """Serve until killed."""
    ca = ThrowAwayCa()
    ca.write_ca(folder / "ca.pem")
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Google, "127.0.0.1", 0, ssl=ca.server_context(), backlog=1000)
    port = int(server.sockets[0].getsockname()[1])
    document, _ = make_service_account(PROJECT, f"https://127.0.0.1:{port}/token")
    account = folder / "fcm.json"
    account.touch(mode=0o600)
    account.write_text(json.dumps(document))
    print(port, flush=True)  # noqa: T201 -- the answer
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1])))
