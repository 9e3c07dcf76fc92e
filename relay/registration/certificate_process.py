"""Certificates that unknown clients send are read in a separate process with little time and memory.

A PKCS #12 file or an encrypted key names the rounds of its key derivation itself. A few bytes can ask for billions of
rounds, which would stop the event loop for hours. This module is also the program of that process.
"""

import asyncio
import json
import os
import resource
import sys
from base64 import b64decode, b64encode
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from eas_watcher.auth.certificate import CertificateCredential, read_pem, read_pkcs12
from eas_watcher.auth.credential import UnusableCredential
from relay.process import core_dumps
from relay.registration.errors import Busy
from relay.registration.requests import CertificateLogin

SECONDS: Final = 10.0  # the most that the process may run
CPU_SECONDS: Final = 4  # seconds of CPU time at most; 600,000 rounds take a quarter of a second
MEMORY: Final = 1 << 30  # bytes of address space, most of it libraries
AT_ONCE: Final = 2  # processes
QUEUE: Final = 20  # certificates that wait for one of them; the last one waits for 100 s at worst
NICE: Final = 10  # added to the niceness of the process, so that pushes and Pings come first
PROGRAM: Final = f"import os, runpy; os.nice({NICE}); runpy.run_module({__spec__.name!r}, run_name='__main__')"
"""Loading the libraries takes more time than reading a usual certificate, so the niceness comes first."""
NO_ANSWER: Final = "cannot be read in reasonable time: use fewer rounds of key derivation, e.g. 2048"


class CertificateProcess:
    """Reads each certificate in a new process."""

    def __init__(self) -> None:
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def read(self, user: str, login: CertificateLogin) -> CertificateCredential:
        """Return the certificate with its key; raise UnusableCredential, also when reading takes too long.

        Raises Busy, and reads nothing, if too many wait already.
        """
        if self._waiting >= QUEUE:
            raise Busy("too many certificates wait to be read; ask again")
        question = {"user": user, "pem": login.pem, "passphrase": login.passphrase}
        question["pkcs12"] = b64encode(login.pkcs12).decode()
        self._waiting += 1
        try:
            await self._gate.acquire()
        finally:
            self._waiting -= 1
        try:
            answer = await _run(json.dumps(question).encode())
        finally:
            self._gate.release()
        if "fault" in answer:
            raise UnusableCredential(answer["fault"])
        return CertificateCredential(user, answer["chain"], answer["key"])


async def _run(question: bytes) -> dict[str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        async with asyncio.timeout(SECONDS):
            output, _ = await process.communicate(question)
        answer: Any = json.loads(output)
    except (TimeoutError, ValueError):
        answer = {"fault": NO_ANSWER}
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return dict(answer)


def answer(question: dict[str, str], now: datetime) -> dict[str, str]:
    """Return the chain and the key of a certificate as PEM, or its fault."""
    user, passphrase = question["user"], question["passphrase"]
    try:
        if question["pkcs12"]:
            credential = read_pkcs12(user, b64decode(question["pkcs12"]), passphrase, now)
        else:
            credential = read_pem(user, question["pem"], passphrase, now)
    except UnusableCredential as error:
        return {"fault": str(error)}
    return {"chain": credential.chain, "key": credential.key}


def main() -> None:
    """Answer the question on standard input, within limits that this process cannot raise."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    core_dumps.forbid()
    now = datetime.now(UTC)  # noqa: TID251 -- no clock is passed to this process
    json.dump(answer(json.load(sys.stdin), now), sys.stdout)


if __name__ == "__main__":
    main()
