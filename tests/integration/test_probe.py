"""The probe against the simulated server over TLS: its report on each family, and that it does no harm."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.commands.provision import Acknowledgement
from eas_watcher.names import CollectionClass
from eas_watcher.tools.probe.arguments import PASSWORD as VARIABLE
from eas_watcher.tools.probe.arguments import Order, run_probe
from eas_watcher.tools.probe.device import probe_device
from eas_watcher.tools.probe.finding import Finding, Grade, works
from eas_watcher.transport.tls import client_context
from relay.sandbox.certificates import ThrowAwayCa
from relay.sandbox.eas.failures import AnswerHttp, AnswerStatus, Crash, Cut, FailurePlan, Garble
from relay.sandbox.eas.families import FAMILIES
from relay.sandbox.eas.personality import Family
from relay.sandbox.eas.rules import EasRules
from relay.sandbox.eas.server import open_eas_simulator
from relay.sandbox.eas.simulator import EasSimulator
from tests.fakes import chains
from tests.fakes.tls import Authority
from tests.integration.eas_world import ANN, ONE_MAIL, PASSWORD, hurried, world
from tests.waiting import until

PATIENCE = 0.5  # seconds


@asynccontextmanager
async def server(rules: EasRules | None = None) -> AsyncIterator[tuple[EasSimulator, Order]]:
    authority = Authority()
    async with open_eas_simulator(tls=authority.server, rules=rules) as simulator:
        simulator.add_mailbox(ANN, PASSWORD)
        yield simulator, order(simulator, authority)


def order(simulator: EasSimulator, authority: Authority, password: str = PASSWORD) -> Order:
    credential = BasicCredential(ANN, password)
    return Order(simulator.url, credential, authority.client, Acknowledgement.THIRD_PARTY, PATIENCE)


async def probe(order: Order) -> dict[str, Finding]:
    shown: list[Finding] = []
    findings = await run_probe(order, shown.append)
    assert findings == shown
    return {finding.step: finding for finding in findings}


@pytest.mark.parametrize("family", list(FAMILIES))
async def test_each_family_would_do_for_a_relay(family: Family) -> None:
    async with server(FAMILIES[family]) as (simulator, arguments):
        for number in range(60):
            simulator.deliver(ANN, subject=f"Old {number}")
        findings = await probe(arguments)

        assert works(findings.values())
        assert list(findings) == ["TLS", "Login", "OPTIONS", "Provision", "Settings", "FolderSync", "Sync", "Ping"]
        assert "TLSv1.3" in findings["TLS"].text
        assert "60 items" in findings["Sync"].text
        assert simulator.complaints == ()
        assert not simulator.records.refusals


@pytest.mark.parametrize(
    ("family", "said"),
    [
        (Family.EXCHANGE, "60 s to 3540 s; a Ping of 60 s is held"),
        (Family.TRAVELER, "30 s to 900 s; a Ping of 60 s is held"),
        (Family.ZPUSH, "no lower limit told to 3540 s; a Ping of 60 s is held"),
        (Family.SOGO, "no lower limit told to no upper limit told; a Ping of 60 s is held"),
    ],
)
async def test_the_limits_of_the_heartbeat_are_found_where_the_server_names_them(family: Family, said: str) -> None:
    async with server(FAMILIES[family]) as (_, arguments):
        findings = await probe(arguments)

        assert findings["Ping"].text == f"heartbeat interval {said}"
        assert findings["Ping"].grade is Grade.GOOD


async def test_a_limit_that_comes_late_is_waited_for() -> None:
    rules = replace(FAMILIES[Family.SOGO], heartbeat_minimum=1, heartbeat_maximum=1)
    async with server(rules) as (_, arguments):
        findings = await probe(replace(arguments, patience=3.0))

        assert "to 1 s" in findings["Ping"].text
        assert findings["Ping"].grade is Grade.NOTE


async def test_versions_commands_and_policy_are_found() -> None:
    async with server() as (_, arguments):
        findings = await probe(arguments)

        assert "versions 12.1, 14.0, 14.1, 16.0, 16.1; 16.1 is taken" in findings["OPTIONS"].text
        assert "15.2" in findings["OPTIONS"].text
        assert "acknowledged with 4" in findings["Provision"].text
        assert len(findings["Provision"].seconds) == 2
        assert "calendar, contacts, email, notes, tasks" in findings["FolderSync"].text
        assert all(0 <= seconds < 5 for finding in findings.values() for seconds in finding.seconds)


async def test_a_server_without_policies_is_found() -> None:
    async with server(FAMILIES[Family.SOGO]) as (_, arguments):
        findings = await probe(arguments)

        assert findings["Provision"].grade is Grade.SKIPPED
        assert findings["Settings"].grade is Grade.GOOD


async def test_a_policy_that_shows_only_later_is_taken_too() -> None:
    rules = FAMILIES[Family.EXCHANGE]
    hidden = replace(rules, personality=replace(rules.personality, announces_provision=False))
    async with server(hidden) as (simulator, arguments):
        findings = await probe(arguments)

        assert works(findings.values())
        assert findings["Provision"].grade is Grade.SKIPPED
        assert simulator.records.requests["Provision"] == 2


async def test_a_wrong_password_is_tried_once() -> None:
    authority = Authority()
    async with open_eas_simulator(tls=authority.server) as simulator:
        simulator.add_mailbox(ANN, PASSWORD)
        findings = await probe(order(simulator, authority, "wrong"))

        assert not works(findings.values())
        assert list(findings) == ["TLS", "Login", "OPTIONS"]
        assert "lock-out" in findings["OPTIONS"].text
        assert len(simulator.log(ANN)) == 1


async def test_an_untrusted_certificate_gets_no_password() -> None:
    async with server() as (simulator, _):
        findings = await probe(order(simulator, Authority()))

        assert list(findings) == ["TLS"]
        assert "certificate not trusted" in findings["TLS"].text
        assert simulator.records.requests == {}


async def test_a_ca_that_newer_software_refuses_is_noted_and_used() -> None:
    ca = chains.Authority(critical=False)
    async with open_eas_simulator(tls=chains.serving_context(ca.server(["127.0.0.1"]))) as simulator:
        simulator.add_mailbox(ANN, PASSWORD)
        asked = replace(
            order(simulator, Authority()),
            tls=client_context(ca_pem=ca.pem),
            strict=client_context(ca_pem=ca.pem, strict=True),
        )
        findings = await probe(asked)

    assert works(findings.values())
    assert findings["TLS"].grade is Grade.NOTE
    assert "not marked critical" in findings["TLS"].text


async def test_a_server_that_is_not_there_is_reported() -> None:
    async with server() as (_, arguments):
        pass
    findings = await probe(arguments)

    assert [finding.grade for finding in findings.values()] == [Grade.BAD]
    assert "no connection" in findings["TLS"].text


async def test_an_acknowledgement_that_is_not_taken_is_reported_with_the_remedy() -> None:
    async with server(EasRules(acknowledgements=frozenset({1}))) as (_, arguments):
        findings = await probe(arguments)
        assert not works(findings.values())
        assert "--acknowledge" in findings["Provision"].text

        assert works((await probe(replace(arguments, acknowledgement=Acknowledgement.APPLIED))).values())


@pytest.mark.parametrize(
    ("command", "failure"),
    [
        ("OPTIONS", AnswerHttp(404)),
        ("OPTIONS", AnswerHttp(200, {"Content-Type": "text/html"}, "<html>Sign in</html>")),
        ("FolderSync", Cut()),
        ("Provision", AnswerHttp(451, {"X-MS-Location": "https://other.example.com/Microsoft-Server-ActiveSync"})),
        ("Provision", AnswerStatus(129)),
        ("FolderSync", Crash()),
        ("FolderSync", AnswerStatus(6)),
        ("FolderSync", AnswerStatus(126)),
        ("Sync", Garble()),
        ("Sync", AnswerStatus(5)),
        ("Ping", AnswerHttp(502)),
    ],
    ids=repr,
)
async def test_the_first_step_that_fails_is_the_last(
    command: str, failure: AnswerHttp | AnswerStatus | Cut | Crash | Garble
) -> None:
    async with server() as (simulator, arguments):
        simulator.fail(ANN, FailurePlan(failure, command))
        findings = await probe(arguments)

        assert list(findings)[-1] == command
        assert [finding.step for finding in findings.values() if finding.grade is Grade.BAD] == [command]


async def test_a_wipe_is_reported_and_never_acknowledged() -> None:
    async with server() as (simulator, arguments):
        await probe(arguments)
        simulator.wipe(ANN)
        findings = await probe(arguments)

        assert not works(findings.values())
        assert "wiped" in findings["Provision"].text
        (device,) = simulator.devices(ANN)
        assert device.wipe is not None


@pytest.mark.parametrize("family", list(FAMILIES))
@hurried
async def test_a_watch_beside_the_probe_notices_nothing(family: Family) -> None:
    async with world(rules=FAMILIES[family]) as watched:
        watched.start()
        await watched.until_held()
        before = [(logged.command, logged.moment) for logged in watched.simulator.log(ANN)]
        kept = dict(watched.ann.collections), watched.ann.partnership
        findings = await run_probe(
            Order(
                watched.simulator.url,
                BasicCredential(ANN, PASSWORD),
                watched.trusting,
                Acknowledgement.THIRD_PARTY,
                PATIENCE,
            ),
            lambda _: None,
        )
        assert works(findings)
        assert len(before) < len(watched.simulator.log(ANN))
        assert (dict(watched.ann.collections), watched.ann.partnership) == kept
        watched.simulator.deliver(ANN)
        await until(lambda: watched.ann.changes == ONE_MAIL)


async def test_the_program_prints_a_line_for_each_step_and_ends_with_the_verdict(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("probe")
    ca = ThrowAwayCa("probe")
    ca.write_ca(folder / "ca.pem")
    async with open_eas_simulator(tls=ca.server_context()) as simulator:
        simulator.add_mailbox(ANN, PASSWORD)
        run = [sys.executable, "-m", "eas_watcher", "probe", "--url", simulator.url, "--user", ANN, "--patience", "0.5"]
        process = await asyncio.create_subprocess_exec(
            *run,
            *("--ca-file", str(folder / "ca.pem")),
            env={VARIABLE: PASSWORD},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(process.communicate(), 60)

        lines = said.decode().splitlines()
        assert process.returncode == 0, said
        assert len(lines) == 10
        assert lines[-1] == "The relay would work with this server and user."
        assert PASSWORD not in said.decode()
        assert CollectionClass.EMAIL.value in said.decode()
        simulator.add_mailbox(ANN, "changed")
        (folder / "password").write_text(f"{PASSWORD}\n", encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            *run,
            *("--ca-file", str(folder / "ca.pem"), "--password-file", str(folder / "password")),
            stdout=asyncio.subprocess.PIPE,
        )
        await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 1
        assert simulator.records.refusals == {ANN: 1}
        assert probe_device(simulator.url, ANN).startswith("probe")


async def test_subfolders_that_could_be_watched_are_counted() -> None:
    async with server() as (simulator, arguments):
        inbox = simulator.mailbox(ANN).default_folder(CollectionClass.EMAIL)
        for name in ("Projects", "Rome"):
            simulator.add_folder(ANN, name, parent=inbox)
        simulator.add_folder(ANN, "Junk")
        findings = await probe(arguments)

    assert findings["FolderSync"].text.endswith(", and on request 2 sub-folders")
