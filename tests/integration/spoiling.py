"""A host with a good installation, and ways to spoil it: by a setting, or by the content of a file."""

import asyncio
import json
import os
import shutil
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs7,
    pkcs12,
)

from relay import app
from relay.cli.keygen import write_sealing_keys
from relay.domain.errors import SettingsInvalid
from relay.domain.model import Role
from relay.settings import load
from tests.fakes.chains import Authority
from tests.ports import free_ports

Faults = list[tuple[str, str, str]]
CANARY: Final = "canary7Xq2LmPz9RtVw4BnKc8Jd"
NOBODY: Final = 65534
BOM: Final = b"\xef\xbb\xbf"
EC: Final = ec.generate_private_key(ec.SECP256R1())
EC_PEM: Final = EC.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Host:
    """A copy of a good installation, to be spoilt."""

    def __init__(self, template: Path, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(template, folder)
        self.toml = folder / "relay.toml"
        self.tables: dict[str, Any] = tomllib.loads(self.toml.read_text())
        self.put("api.host", "127.0.0.1")
        api, ops = free_ports(2)
        self.put("api.port", api)
        self.put("ops.port", ops)

    def put(self, key: str, value: Any) -> None:
        *tables, last = key.split(".")
        table = self.tables
        for name in tables:
            table = table.setdefault(name, {})
        table[last] = value
        self.toml.write_text(dump(self.tables))

    def write(self, name: str, content: bytes, mode: int = 0o600) -> None:
        path = self.folder / name
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        path.chmod(mode)

    def checked(self, *, serves: bool = False) -> Faults:
        """Return the faults that the commands name."""
        try:
            found = load(self.toml, {}, Role.ALL, first=True)
            if serves and found.sealing.private is None:
                with suppress(OSError):  # as the command, it names the fault of the host
                    write_sealing_keys(found.sealing.private_key_file, found.sealing.public_key_file)
                    found = load(self.toml, {}, Role.ALL)
            app.look_at_host(found, serves=serves)
        except SettingsInvalid as error:
            return error.faults
        return []

    def serve(self) -> None:
        """Start the relay, and end it again."""

        async def start() -> None:
            async with app.opened(load(self.toml, {}, Role.ALL)):
                pass

        asyncio.run(start())


def dump(tables: dict[str, Any], prefix: str = "") -> str:
    """Write TOML."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in tables.items() if not isinstance(value, dict)]
    inner = [(f"{prefix}{key}", value) for key, value in tables.items() if isinstance(value, dict)]
    return "\n".join(lines) + "".join(f"\n[{name}]\n{dump(value, f'{name}.')}" for name, value in inner)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Run as a user who may not do everything."""
    if os.geteuid() != 0:
        yield
        return
    groups = os.getgroups()
    os.setgroups([NOBODY])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def pem_of(kind: str) -> bytes:
    return {
        "ec": EC_PEM,
        "ed25519": ed25519.Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        ),
        "public": EC.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "encrypted": EC.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")),
        "der": EC.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
    }[kind]


@cache
def p12() -> bytes:
    return pkcs12.serialize_key_and_certificates(b"ann", EC, None, None, BestAvailableEncryption(b"secret"))


def p7b() -> bytes:
    """Return a certificate in PKCS #7, in the binary form that Windows exports first."""
    certificate = x509.load_pem_x509_certificate(Authority().pem)
    return pkcs7.serialize_certificates([certificate], Encoding.DER)


Spoil = Callable[[Host], object]


def content(name: str, change: Callable[[bytes], bytes]) -> Spoil:
    def change_it(host: Host) -> None:
        path = host.folder / name
        if not path.is_file():
            raise FileNotFoundError(path)
        host.write(name, change(path.read_bytes()))

    return change_it


def setting(key: str, value: Any) -> Spoil:
    return lambda host: host.put(key, value)


def account(**fields: str) -> Spoil:
    return content("fcm.json", lambda json_: json.dumps(json.loads(json_) | fields).encode())


def fifo(name: str) -> Spoil:
    def make(host: Host) -> None:
        (host.folder / name).unlink()
        os.mkfifo(host.folder / name, 0o600)

    return make


def folder(name: str) -> Spoil:
    def make(host: Host) -> None:
        (host.folder / name).unlink()
        (host.folder / name).mkdir()

    return make


def link(name: str, target: str) -> Spoil:
    def make(host: Host) -> None:
        (host.folder / name).unlink()
        (host.folder / name).symlink_to(target)

    return make
