"""Client certificates at a server that asks by TLS 1.2 renegotiation, which Python's own server cannot do."""

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from eas_watcher.auth.certificate import read_pem
from eas_watcher.commands.options import Options
from eas_watcher.names import DeviceId, MailboxId
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.http_request import compose
from eas_watcher.transport.client_certificate import IdentifiedTransport, show_certificate
from eas_watcher.transport.http import open_transport
from relay.process.clock import now
from relay.sandbox.certificates import ThrowAwayCa
from tests.interop.packages import Unavailable, install, unavailable
from tests.ports import free_port
from tests.waiting import until

ANN = "ann@example.com"
RENEGOTIATE = b"R\n"  # s_server: renegotiate and ask for a client certificate
ANSWER = b"HTTP/1.1 200 OK\nMS-ASProtocolVersions: 14.1\nContent-Length: 0\n\n"


@contextmanager
def s_server(ca: ThrowAwayCa, folder: Path, port: int) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run OpenSSL's server, which obeys its standard input; yield the process and its log."""
    try:
        install("openssl")
    except Unavailable as reason:
        unavailable(reason)
    ca.write_ca(folder / "ca.pem")
    (folder / "server.pem").write_bytes(ca.server_pem())
    # Without tickets and cache: a resumed session has no place for a certificate.
    command = ("openssl", "s_server", "-tls1_2", "-no_ticket", "-no_cache", "-accept", f"127.0.0.1:{port}")
    files = ("-cert", str(folder / "server.pem"), "-CAfile", str(folder / "ca.pem"))
    log = folder / "s_server.log"
    with log.open("wb") as output:
        process = subprocess.Popen((*command, *files), stdin=subprocess.PIPE, stdout=output, stderr=output)
    try:
        yield process, log
    finally:
        process.kill()
        process.communicate()


@pytest.mark.both_loops
async def test_a_server_may_ask_by_renegotiation(tmp_path: Path) -> None:
    ca, port = ThrowAwayCa(), free_port()
    ann = read_pem(ANN, ca.client_pem(ANN).decode(), "", now())
    url = f"https://127.0.0.1:{port}/Microsoft-Server-ActiveSync"
    request = compose(Account(MailboxId("m"), url, ANN, DeviceId("D1"), ann), Options(), None, None)
    context = ca.client_context()
    show_certificate(context, ann)
    with s_server(ca, tmp_path, port) as (server, log):
        said = log.read_text
        await until(lambda: "ACCEPT" in said())
        async with open_transport(context) as transport, asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(IdentifiedTransport(ann, transport, now).send(request))
            await until(lambda: "OPTIONS /Microsoft-Server-ActiveSync" in said())
            assert ANN not in said()
            assert server.stdin is not None
            server.stdin.write(RENEGOTIATE)
            server.stdin.flush()
            await until(lambda: f"UID = {ANN}" in said() and "verify return:1" in said())
            server.stdin.write(ANSWER)
            server.stdin.flush()
    assert answer.result().status == 200
