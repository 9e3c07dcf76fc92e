"""`relay phone` lives an app's life against real relay processes: scripts of commands and expectations."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.site import ANN, PASSWORD, Site, open_site

LIMIT: Final = 120.0  # seconds
WATCHED: Final = "register\nexpect state watching within 60s\n"


@dataclass(frozen=True)
class Ended:
    status: int
    out: list[dict[str, str]]
    err: str

    def texts(self, what: str) -> list[str]:
        return [line["text"] for line in self.out if line["what"] == what]


async def phone(site: Site, script: str, *arguments: str, path: str | None = None) -> Ended:
    """Run a script of `relay phone` for ann; `path` is added to the programs that it finds."""
    options = ("--folder", str(site.sandbox.folder), "--user", ANN, "--password", PASSWORD, "--script", "-", "--json")
    environ = {**os.environ, "PATH": f"{path or os.defpath}:{os.environ['PATH']}"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", "phone", *arguments, *options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environ,
    )
    async with asyncio.timeout(LIMIT):
        out, err = await process.communicate(script.encode())
    return Ended(process.returncode or 0, [json.loads(line) for line in out.splitlines()], err.decode())


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, id=" ".join(kind))
        for kind in (("apns",), ("apns", "--environment", "sandbox"), ("fcm",), ("fcm", "--fid"), ("webpush",))
    ],
)
async def test_a_phone_registers_and_shows_mail_and_test(site: Site, kind: tuple[str, ...]) -> None:
    script = f"""{WATCHED}
    deliver
    expect banner "New mail"
    test-push
    expect test delivered
    expect banner Test
    expect banners 2
    open
    expect banners 0
    logout
    expect state none
    deliver
    expect nothing for 1s
    """
    async with site.relay():
        ended = await phone(site, script, *kind)

    assert (ended.status, ended.err) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["apns", "fcm", "webpush"])
async def test_a_phone_proves_that_it_has_its_token(tmp_path: Path, kind: str) -> None:
    asked = {"RELAY__API__PROVE_POSSESSION": "apns, fcm, webpush"}
    async with open_site(tmp_path / "sandbox", asked) as proving:
        proving.sandbox.eas.add_mailbox(ANN, PASSWORD)
        async with proving.relay():
            ended = await phone(proving, f"register\nexpect woke challenge\n{WATCHED}deliver\nexpect banner\n", kind)

    assert (ended.status, ended.err) == (0, "")
    assert ended.texts("registered")[0].startswith("proving")
    assert ended.texts("proved") != []


@pytest.mark.slow
async def test_of_three_days_off_an_iphone_shows_the_newest_of_each_class(site: Site) -> None:
    script = f"""{WATCHED}
    off
    deliver
    expect held email
    deliver calendar
    expect held calendar
    deliver
    expect superseded email
    expect held email
    wait 2d
    on
    expect banner "New mail"
    expect banner Calendar
    off
    deliver
    expect held email
    wait 4d
    expect expired email
    on
    expect nothing for 1s
    """
    async with site.relay():
        ended = await phone(site, script, "apns", "--class", "email", "--class", "calendar")

    assert (ended.status, ended.err) == (0, "")


@pytest.mark.slow
async def test_a_token_of_the_other_environment_is_refused_until_the_app_names_the_right_one(site: Site) -> None:
    script = f"""{WATCHED}
    environment wrong
    test-push
    expect test "refused BadDeviceToken"
    environment right
    deliver
    expect banner "New mail"
    """
    async with site.relay():
        ended = await phone(site, script)

    assert (ended.status, ended.err) == (0, "")
    assert {push.status for push in site.sandbox.apns_sandbox.received} == {400}


@pytest.mark.slow
async def test_reinstall_new_token_and_restore_keep_the_phone_rung_and_only_it(site: Site) -> None:
    script = f"""{WATCHED}
    new-token
    deliver
    expect banner
    reinstall
    expect state watching
    deliver
    expect banner
    restore
    deliver
    expect banner
    expect nothing for 1s
    restore fresh
    deliver
    expect banner
    """
    async with site.relay():
        ended = await phone(site, script)

    assert (ended.status, ended.err) == (0, "")
    assert "old phone 1" not in {line["phone"] for line in ended.out}
    assert any(push.status == 410 for push in site.sandbox.apns.received), "the token of the removed app is gone"


@pytest.mark.slow
async def test_a_wiped_app_learns_it_and_rings_no_more(site: Site) -> None:
    script = f"""{WATCHED}
    wipe
    deliver
    expect banner Attention
    open
    expect refused wiped
    expect state none
    """
    async with site.relay():
        ended = await phone(site, script)

    assert (ended.status, ended.err) == (0, "")


@pytest.mark.slow
async def test_the_new_password_of_a_mailbox_brings_its_mails_back(site: Site) -> None:
    script = f"""{WATCHED}
    password other
    deliver
    expect state http-401
    login other
    expect state watching within 60s
    deliver
    expect banner "New mail"
    """
    async with site.relay():
        ended = await phone(site, script)

    assert (ended.status, ended.err) == (0, "")


@pytest.mark.slow
async def test_pushes_are_given_to_a_simulator(site: Site, tmp_path: Path) -> None:
    xcrun = tmp_path / "bin" / "xcrun"
    xcrun.parent.mkdir()
    xcrun.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    xcrun.chmod(0o755)
    async with site.relay():
        given = await phone(
            site, f"{WATCHED}deliver\nexpect simctl given\n", "--simctl", "booted", path=str(xcrun.parent)
        )

    (call,) = (tmp_path / "calls").read_text().splitlines()
    verb = call.split()
    assert verb == ["simctl", "push", "booted", str(site.sandbox.folder / "pushes" / "0001.apns")]
    payload = json.loads((site.sandbox.folder / "pushes" / "0001.apns").read_text())
    assert payload["Simulator Target Bundle"] == "com.example.mail"
    assert payload["aps"]["alert"]["title"] == "New mail"
    assert given.texts("simctl") == ["given to the simulator booted"]


@pytest.mark.slow
async def test_an_expectation_that_fails_ends_the_script_and_says_what_happened_instead(site: Site) -> None:
    faulty = await phone(site, "jump\nregister loud\n")
    failed = await phone(site, "expect banner within 1s\ndeliver\n")

    assert (faulty.status, faulty.out) == (2, [])
    assert "line 1" in faulty.err
    assert "line 2" in faulty.err
    assert (failed.status, failed.out) == (1, [])
    assert "'banner' was expected within 1 s, but: nothing" in failed.err


@pytest.mark.slow
async def test_a_script_that_a_signal_ends_has_not_come_true(site: Site, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("register\nexpect nothing for 60s\n")
    options = ("--folder", str(site.sandbox.folder), "--user", ANN, "--password", PASSWORD, "--script", str(script))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", "phone", *options), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(LIMIT):
        assert b"no answer" in await process.stdout.readline()  # no relay runs
        process.terminate()
        await process.communicate()

    assert process.returncode == 1


async def test_a_phone_without_a_sandbox_says_how_to_start_one(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", "phone", "--folder", str(tmp_path)),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()

    assert process.returncode == 2
    assert "relay sandbox" in err.decode()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["apns", "webpush"])
async def test_a_phone_says_that_no_relay_answers(site: Site, kind: str) -> None:
    ended = await phone(site, "register\nregister\n", kind)

    assert (ended.status, ended.err) == (0, "")
    assert ended.texts("refused") == ["the relay gives no answer, is it running? (ClientConnectorError)"] * 2
