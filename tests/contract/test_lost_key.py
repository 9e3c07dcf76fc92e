"""Test that no new sealing key is made beside credentials that it would not open."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from eas_watcher.auth.basic import BasicCredential
from relay.domain.model import Mark
from relay.security.sealing import SealingPrivateKey, foreign, generate
from relay.store.engine import Database, open_database
from relay.store.registrations import SqlRegistrationStore
from relay.store.seals import LOST, forget_credentials, seal_heads
from relay.store.tables import candidate, outbox
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.samples import BY_CLEO, LATER, NOW, activate, candidate_of, new_mailbox, new_registration, register
from tests.fakes.seals import old_seal
from tests.installation import Installation
from tests.migrating import write_new_sqlite
from tests.transactions import transaction
from tests.waiting import SOON

PRIVATE = X25519PrivateKey.generate()
KEY = SealingPrivateKey(PRIVATE)
KEY_PEM = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
ANN = new_mailbox("ann")
SEAL = KEY.public_key().seal(ANN, BasicCredential(ANN.user, "canary"))
OLD_SEAL = old_seal(KEY.public_key(), ANN, BasicCredential(ANN.user, "canary"))


async def add_ann(engine: Database, sealed: bytes) -> None:
    registration = new_registration("ann")
    await SqlRegistrationStore(engine, LocalWakeups()).create(ANN, registration, sealed)
    await SqlWatchStore(engine, LocalWakeups()).accept(candidate_of(registration, sealed), LATER)


@pytest.mark.parametrize(
    ("sealed", "head"), [(SEAL, SEAL[:9]), (OLD_SEAL, OLD_SEAL[:9])], ids=["present form", "old form"]
)
async def test_the_database_knows_for_which_keys_its_credentials_are(
    engine: Database, sealed: bytes, head: bytes
) -> None:
    assert await seal_heads(engine) == {}
    await add_ann(engine, sealed)

    heads = await seal_heads(engine)

    assert heads == {head: 1}
    assert foreign(heads, KEY.ids) is None
    assert foreign({}, frozenset()) is None
    assert foreign(heads, frozenset()) == (1, () if sealed is OLD_SEAL else (sealed[1:9].hex(),))


async def test_forgotten_credentials_are_as_if_their_server_had_refused_them(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    ann = await activate(registrations, watches)
    ben = await register(registrations, "ben")

    assert await forget_credentials(engine, LATER, BY_CLEO) == 1

    view = await registrations.view(ann.id)
    assert view is not None
    assert (view.mailbox.state, view.mailbox.reason, view.mailbox.detail) == (
        "credential-refused",
        "credential-unusable",
        LOST,
    )
    bens = await registrations.view(ben.id)
    assert bens is not None
    assert bens.registration.state == "credential-refused"
    async with transaction(engine) as connection:
        assert (await connection.scalars(sa.select(candidate.c.sealed))).all() == []
        marks = (await connection.execute(sa.select(outbox.c.registration_id, outbox.c.mark))).all()
    assert [tuple(row) for row in marks] == [(ann.id, Mark.ATTENTION.value)]
    record = await watches.record(ann.mailbox_id, NOW)
    assert record is not None
    assert record.sealed_credential is None


# --- the commands, on an embedded database


def relay(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "relay", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environ)


@pytest.fixture(
    params=[pytest.param(SEAL, id="present form"), pytest.param(OLD_SEAL, id="old form", marks=pytest.mark.slow)]
)
def lost(request: pytest.FixtureRequest, tmp_path: Path) -> Installation:
    """Return an installation with a stored credential, without its keys."""
    return lose(tmp_path, request.param)


def lose(folder: Path, sealed: bytes) -> Installation:
    site = Installation(folder)
    site.listen_elsewhere()

    async def fill() -> None:
        async with open_database(await write_new_sqlite(site.folder / "state/relay.sqlite3")) as engine:
            await add_ann(engine, sealed)

    asyncio.run(fill())
    for name in ("sealing-private.pem", "sealing-public.pem"):
        (site.folder / "state" / name).unlink()
    return site


@pytest.mark.slow
@pytest.mark.parametrize("command", ["serve", "keygen"])
def test_no_new_key_is_made_beside_credentials_of_a_lost_one(lost: Installation, command: str) -> None:
    ended = relay(command, "--config", str(lost.toml))

    assert ended.returncode == 1
    assert "1 credential that was sealed for another key: " in ended.stderr
    assert "sealing-private.pem" in ended.stderr
    assert "relay keys list" not in ended.stderr  # it wants the present key
    assert not (lost.folder / "state/sealing-private.pem").exists()


@pytest.mark.slow
def test_the_first_start_makes_no_keys_beside_one_in_a_variable(lost: Installation) -> None:
    """Its public key would be one of another pair, and would keep the relay from starting."""
    lost.replace("[relay]", '[sealing]\nprivate_key_file = "environment:SEALING_KEY"\n[relay]')
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        ended = relay("serve", "--config", str(lost.toml), SEALING_KEY=KEY_PEM.decode(), RELAY__OPS__PORT=port)

    assert ended.returncode == 1
    assert "ops.port: " in ended.stderr  # which is looked at after the keys
    assert not list((lost.folder / "state").glob("sealing-*"))


@pytest.mark.parametrize("name", ["keygen", "migrate"])
def test_a_command_that_a_signal_ends_neither_goes_on_nor_succeeds(lost: Installation, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(SOON)
        environ = os.environ | {"RELAY__DATABASE__URL": f"postgresql://relay@127.0.0.1:{silent.getsockname()[1]}/relay"}
        command = (sys.executable, "-m", "relay", name, "--config", str(lost.toml))
        with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as asking:
            connection, _ = silent.accept()
            with connection:
                asking.send_signal(signal.SIGINT)
                _, said = asking.communicate(timeout=SOON)

    assert (asking.returncode, said) == (1, "ended by a signal\n")
    assert not (lost.folder / "state/sealing-private.pem").exists()


def test_a_replaced_key_may_be_followed_by_a_new_one(lost: Installation) -> None:
    lost.write("state/former.pem", KEY_PEM)
    lost.replace("[relay]", '[sealing]\nformer_private_key_files = ["state/former.pem"]\n[relay]')

    ended = relay("keygen", "--config", str(lost.toml))

    assert ended.returncode == 0, ended.stderr


def test_the_administrator_may_give_the_credentials_up(lost: Installation) -> None:
    ended = relay("keygen", "--forget", "--config", str(lost.toml))

    assert ended.returncode == 0, ended.stderr
    assert "1 credential destroyed" in ended.stderr
    assert (lost.folder / "state/sealing-private.pem").exists()


@pytest.mark.slow
def test_a_relay_with_another_key_does_not_start(tmp_path: Path) -> None:
    lost = lose(tmp_path, SEAL)
    private, public = generate()
    lost.write("state/sealing-private.pem", private)
    lost.write("state/sealing-public.pem", public, 0o644)

    ended = relay("serve", "--config", str(lost.toml))

    assert ended.returncode == 1
    assert "sealed for another key" in ended.stderr
