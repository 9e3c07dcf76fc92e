"""A folder with a relay.toml and every file that it names, all of them good; tests break one thing at a time."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final

import trustme
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from relay.domain.errors import SettingsInvalid
from relay.domain.model import Role
from relay.security.sealing import generate
from relay.settings import Settings, load
from tests.keys import rsa_pem
from tests.ports import free_ports

GOOD: Final = """
[relay]
state_dir = "state"

[api]
certificate_file = "api.pem"
key_file = "api.key"

[servers.main]
url = "https://mail.example.com"
domains = ["Example.com"]

[apns]
key_file = "apns.p8"
key_id = "ABCDE12345"
team_id = "TEAM567890"
topics = ["com.example.mail"]

[fcm]
service_account_file = "fcm.json"
apps = ["com.example.mail"]
"""


@cache
def explained() -> list[re.Pattern[str]]:
    """Return the faults for which docs/troubleshoot.md has a heading."""
    text = (Path(__file__).parents[1] / "docs/troubleshoot.md").read_text(encoding="utf-8")
    headings = text.partition("## What the relay says")[2].partition("## What health says")[0]
    messages = [message for line in re.findall("^### (.*)$", headings, re.MULTILINE) for message in line.split(" / ")]
    return [re.compile(re.escape(message).replace("…", ".*")) for message in messages]


class Installation:
    """The folder: a test writes into it and loads the settings from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.toml = folder / "relay.toml"
        ca = trustme.CA()
        self.write("ca.pem", ca.cert_pem.bytes(), 0o644)
        self.certify(ca, "api", "relay.example.com")
        self.certify(ca, "old", "relay.example.com", until=datetime(2026, 1, 2, tzinfo=UTC))
        for name, key in (
            ("apns.p8", ec.generate_private_key(ec.SECP256R1())),
            ("vapid.pem", ec.generate_private_key(ec.SECP256R1())),
            ("p384.p8", ec.generate_private_key(ec.SECP384R1())),
        ):
            self.write(name, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.account = {
            "type": "service_account",
            "project_id": "example",
            "client_email": "relay@example.com",
            "private_key": rsa_pem(),
            "token_uri": "https://oauth2.example.com/token",
        }
        self.write("fcm.json", json.dumps(self.account).encode())
        (folder / "state").mkdir()
        private, public = generate()
        self.write("state/sealing-private.pem", private)
        self.write("state/sealing-public.pem", public, 0o644)
        self.configure(GOOD)

    def configure(self, text: str) -> None:
        self.toml.write_text(text)

    def replace(self, old: str, new: str) -> None:
        text = self.toml.read_text()
        assert old in text
        self.configure(text.replace(old, new))

    def listen_elsewhere(self) -> None:
        """Choose ports on which nobody listens, for a test that runs the relay; else it would need the usual ones."""
        api, ops = free_ports(2)
        self.replace("[api]", f"[ops]\nport = {ops}\n\n[api]\nport = {api}")

    def write(self, name: str, content: bytes, mode: int = 0o600) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        path.chmod(mode)
        return path

    def certify(self, ca: trustme.CA, name: str, host: str, until: datetime | None = None) -> None:
        leaf = ca.issue_cert(host, not_after=until)
        self.write(f"{name}.pem", b"".join(blob.bytes() for blob in leaf.cert_chain_pems), 0o644)
        self.write(f"{name}.key", leaf.private_key_pem.bytes())
        self.write(f"{name}-both.pem", leaf.private_key_and_cert_chain_pem.bytes())

    def load(self, role: Role = Role.ALL, environ: Mapping[str, str] | None = None) -> Settings:
        return load(self.toml, environ or {}, role)

    def faults(self, role: Role = Role.ALL, environ: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
        """Return (key, what is wrong) of every fault; none when it loads."""
        found: list[tuple[str, str, str]] = []
        try:
            self.load(role, environ)
        except SettingsInvalid as error:
            found = error.faults
        assert all(key and wrong and remedy.endswith((".", "?")) for key, wrong, remedy in found)
        assert [wrong for _, wrong, _ in found if not any(text.search(wrong) for text in explained())] == []
        return [(key, wrong) for key, wrong, _ in found]
