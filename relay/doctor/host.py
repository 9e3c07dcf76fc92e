"""This host: folders and their rights, room on disks, files that may be open, and the ports of the listeners."""

import asyncio
import os
import resource
import shutil
import ssl
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client.parser import text_string_to_metric_families

from eas_watcher.transport.tls import client_context
from relay.compose.prepare import folder_faults, key_faults, listener_faults
from relay.doctor.certificates import judge_own
from relay.doctor.finding import Finding, Subject
from relay.domain.clock import Clock
from relay.domain.model import Role
from relay.http.admission import api_connections
from relay.http.hosts import EVERYWHERE
from relay.security.secret_files import user_name
from relay.settings import Settings
from relay.settings.webpush import PUSHES

MEGABYTE: Final = 1_000_000  # bytes
LITTLE: Final = 512 * MEGABYTE
"""Room on a disk below which it may be full before anybody looks again."""
NONE: Final = 32 * MEGABYTE
"""Room below which the database's log and the egress log may not be written for long."""
FEW_NODES: Final = 1000  # files that a disk still takes
OTHERS: Final = 0o007
SPARE: Final = 256
"""Files that a process has open besides connections of phones and to mail servers."""
ANSWER: Final = 2.0  # seconds for a relay that runs here
OTHER_CERTIFICATE: Final = "another certificate"
ANY: Final = {EVERYWHERE: "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- where it is reached
RAISE: Final = "set LimitNOFILE= in its systemd unit, or the limit of its container (ulimits.nofile)"


def look_at_folders(settings: Settings) -> list[Finding]:
    """Return the findings about the folders of the role; a file without a name is made in them for a moment."""
    faults = {key: (wrong, remedy) for key, wrong, remedy in folder_faults(settings)}
    folders = {"relay.state_dir": settings.state_dir}
    if settings.database.file is not None and settings.database.file.parent != settings.state_dir:
        folders["database.url"] = settings.database.file.parent
    if settings.role in PUSHES:
        folders["egress.folder"] = settings.egress.folder
    found = [finding for key, folder in folders.items() for finding in _judge_folder(key, folder, faults.get(key))]
    for key, wrong, remedy in key_faults(settings):
        found.append(Subject("file", key).bad(wrong, remedy))
    return found


def _judge_folder(key: str, folder: Path, fault: tuple[str, str] | None) -> Iterator[Finding]:
    subject = Subject("folder", key)
    if fault is not None:
        yield subject.bad(*fault)
        return
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if there != folder:
        yield subject.good(f"{folder} is made at the first start")
    elif (mode := folder.stat().st_mode & 0o777) & OTHERS:
        yield subject.note(f"{folder} is open to others (mode {mode:04o})", f"run `chmod 700 {folder}`")
    elif os.geteuid() == 0 and folder.stat().st_uid != 0:
        owner = user_name(folder.stat().st_uid)
        remedy = f"run the doctor as that user: `runuser -u {owner} -- relay doctor`"
        yield subject.note(f"{folder} belongs to {owner}, this is root, who may do everything", remedy)
    else:
        yield subject.good(f"{folder} can be written, and others cannot enter")
    yield judge_room(Subject("disk", key), shutil.disk_usage(there).free, os.statvfs(there).f_favail)


def judge_room(subject: Subject, free: int, nodes: int) -> Finding:
    """Return the finding about a disk with so many free bytes, which takes so many more files."""
    text = f"{free // MEGABYTE} MB free"
    remedy = "make room: without it nothing is committed, and no push leaves"
    if free < NONE:
        return subject.bad(text, remedy)
    if free < LITTLE:
        return subject.note(text, remedy)
    # Some file systems make room for files as they come, and say 0.
    if 0 < nodes < FEW_NODES:
        return subject.note(
            f"{text}, but it takes {nodes} more files only", "remove files: the disk has no inodes left"
        )
    return subject.good(text)


def look_at_files(settings: Settings, mailboxes: int, running: int | None) -> Finding:
    """Return the finding about the files that the relay may open.

    `running` is the limit of the relay that runs here; None: none does, and the limit of this command has to do.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1] if running is None else running
    phones = api_connections(limit) if settings.api is not None else 0
    watched = mailboxes if settings.role in {Role.ALL, Role.WATCH} else 0
    return judge_files(limit, watched, phones, runs=running is not None)


def judge_files(limit: int, mailboxes: int, phones: int, *, runs: bool) -> Finding:
    """Return the finding about a limit of open files: each held Ping may need one, each connection of a phone does."""
    subject = Subject("files", "open files")
    whose = "the relay that runs here may open" if runs else "a process of this user may open"
    needed = mailboxes + phones + SPARE
    parts = f"{mailboxes} mailboxes, {phones} connections of phones, {SPARE} others"
    text = f"{whose} {limit}, {needed} may be needed: {parts}"
    if limit < mailboxes + SPARE:
        return subject.bad(text, RAISE)
    if limit < needed:
        return subject.note(text, RAISE)
    return subject.good(text)


class Running:
    """The relay that runs on this host with these settings, as its listeners show it."""

    def __init__(self, settings: Settings) -> None:
        """Ask nothing yet."""
        self._settings = settings
        self.files: int | None = None
        """How many files it may open; None: it does not run, or does not say."""
        self.role = ""
        """Its role; empty: it does not run."""

    async def look(self) -> list[Finding]:
        """Return the findings about the ports: free, the relay's already, or somebody else's."""
        faults, taken = listener_faults(self._settings)
        found = [Subject("port", key).bad(wrong, remedy) for key, wrong, remedy in faults]
        bad = {key.partition(".")[0] for key, _, _ in faults}
        ours = dict(taken)
        for table, port in self._wanted():
            if table in bad:
                continue
            key = f"{table}.port"
            found.append(
                await self._judge(table, port) if key in ours else Subject("port", key).good(f"{port} is free")
            )
        return found

    def _wanted(self) -> Iterator[tuple[str, int]]:
        yield "ops", self._settings.ops.port
        if self._settings.api is not None:
            yield "api", self._settings.api.port

    async def _judge(self, table: str, port: int) -> Finding:
        subject = Subject("port", f"{table}.port")
        ours = await (self._ask_ops() if table == "ops" else self._ask_api())
        if not ours:
            remedy = "`ss -ltnp` shows which program: stop it, or choose another port"
            return subject.bad(f"another program has {port}", remedy)
        if ours == OTHER_CERTIFICATE:
            remedy = (
                "a good file is taken within seconds: ask again; if it stays, see the part `configuration` of /healthz"
            )
            return subject.note(f"{port} is the relay's, which shows another certificate than the file", remedy)
        return subject.good(f"{port} is the relay's, which runs")

    async def _ask_ops(self) -> str:
        """Return what answers on the port of health and metrics; empty: no relay."""
        ops = self._settings.ops
        text = await _get(f"http://{_at(ops.hosts)}:{ops.port}/metrics")
        try:
            samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        except ValueError:
            return ""
        for sample in samples:
            if sample.name == "relay_build_info":
                self.role = sample.labels.get("role", "")
            if sample.name == "process_max_fds":
                self.files = int(sample.value)
        return self.role

    async def _ask_api(self) -> str:
        """Return what answers on the port of the API; empty: no relay."""
        api = self._settings.api
        if api is None:
            return ""
        scheme = "http" if api.certificate_file is None else "https"
        url = f"{scheme}://{_at(api.hosts)}:{api.port}"
        if "/v1/registrations" not in await _get(f"{url}/v1/openapi.json"):
            return ""
        if api.certificate_file is not None and await _shown(url) != _first(api.certificate_file):
            return OTHER_CERTIFICATE
        return "api"


def look_at_certificate(settings: Settings, now: Clock) -> list[Finding]:
    """Return the findings about the certificate that phones see."""
    api = settings.api
    subject = Subject("certificate", "api.certificate_file")
    if api is None:
        return []
    if api.certificate_file is None:
        return [subject.skipped("the reverse proxy before the API has it")]
    roots = frozenset(_common_names(client_context().get_ca_certs()))
    origin = urlsplit("" if settings.webapp is None else settings.webapp.origin)
    browsed = (origin.hostname or "") if origin.scheme == "https" else ""
    return judge_own(subject, api.certificate_file.read_bytes(), roots, now(), browsed)


async def _get(url: str) -> str:
    """Return what answers at a URL of this host; empty: nothing that is of use. No certificate is verified."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(ANSWER)) as session,
            session.get(url, ssl=False, allow_redirects=False) as answer,
        ):
            return await answer.text()
    except (aiohttp.ClientError, OSError, ValueError):  # TimeoutError is an OSError; ValueError: bytes that are no text
        return ""


async def _shown(url: str) -> bytes:
    """Return the certificate that a listener of this host shows, as DER; empty: none."""
    parts = urlsplit(url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(ANSWER):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=context)
    except OSError:
        return b""
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return der or b""


def _first(file: Path) -> bytes:
    """Return the first certificate of a PEM file, as DER."""
    return x509.load_pem_x509_certificates(file.read_bytes())[0].public_bytes(Encoding.DER)


def _at(hosts: Sequence[str]) -> str:
    """Return a listener's first host as it stands in a URL of this host."""
    reached = ANY.get(hosts[0], hosts[0])
    return f"[{reached}]" if ":" in reached else reached


def _common_names(certificates: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the common names of certificates, as the ssl module shows these."""
    for certificate in certificates:
        for pairs in certificate["subject"]:
            yield from (value for name, value in pairs if name == "commonName")
