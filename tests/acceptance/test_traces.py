"""The way of a mail as a collector sees it: one trace over all roles, and no word of a mail, a user or a phone."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest

from relay.sandbox.process import open_relay
from tests.acceptance.test_canaries import leaks
from tests.acceptance.test_roles import make_sealing_keys, migrate
from tests.fakes.collector import FakeCollector, attributes, collecting
from tests.ports import free_ports
from tests.postgres import PostgresServer, running_postgres
from tests.site import ANN, IPHONE, PASSWORD, Site
from tests.waiting import SOON, until

TOKEN: Final = "canary-token-of-the-collector"
SUBJECT: Final = "canary-subject-Xq7"
WORDS: Final = (SUBJECT, ANN, PASSWORD, IPHONE)


@pytest.fixture
async def collector(tmp_path: Path) -> AsyncIterator[FakeCollector]:
    async with collecting(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


def tracing(collector: FakeCollector) -> Mapping[str, str]:
    """Return the variables that switch traces on."""
    headers = collector.ca_file.with_name("collector.headers")
    headers.write_text(f"Authorization: Bearer {TOKEN}\n")
    headers.chmod(0o600)
    return {
        "RELAY__TRACING__ENDPOINT": collector.url,
        "RELAY__TRACING__CA_FILE": str(collector.ca_file),
        "RELAY__TRACING__HEADERS_FILE": str(headers),
        "RELAY__TRACING__SAMPLE_RATIO": "1",
    }


async def push_a_mail(site: Site) -> list[str]:
    """Register an iPhone and deliver a mail; return id and secret of the registration."""
    status, answer = await site.register(ANN, PASSWORD)
    assert status == 201
    await site.held()
    site.deliver(subject=SUBJECT)
    await site.sandbox.apns.wait(1, SOON)
    return [answer["id"], answer["secret"]]


def check(collector: FakeCollector, ids: list[str]) -> None:
    """Check that the mail's trace is whole, and that nothing else was told."""
    (commit,) = (span for span in collector.named("commit changes") if attributes(span)["relay.items"])
    (push,) = (span for span in collector.named("push") if attributes(span)["relay.mark"] == "email")
    (send,) = (span for span in collector.named("send") if span.parent_span_id == push.span_id)
    assert commit.trace_id == push.trace_id == send.trace_id
    assert (commit.parent_span_id, push.parent_span_id) == (b"", commit.span_id)
    assert attributes(commit) == {"relay.mailboxes": 1, "relay.items": 1}
    assert attributes(push) == {
        "relay.provider": "apns",
        "relay.mark": "email",
        "relay.failed_tries": 0,
        "relay.outcome": "delivered",
    }
    moments = [commit.start_time_unix_nano, push.start_time_unix_nano, send.start_time_unix_nano]
    assert moments == sorted(moments)
    assert send.end_time_unix_nano == push.end_time_unix_nano
    assert leaks((*WORDS, *ids), b"".join(collector.bodies)) == []
    assert {headers["Authorization"] for headers in collector.headers} == {f"Bearer {TOKEN}"}


@pytest.mark.slow
async def test_a_mail_is_one_trace(site: Site, collector: FakeCollector) -> None:
    site.environ = {**site.environ, **tracing(collector)}
    async with site.relay():
        ids = await push_a_mail(site)

    check(collector, ids)
    log = (site.sandbox.folder / "relay.log").read_bytes()
    assert TOKEN.encode() not in log
    assert b"traces dropped" not in log


@pytest.mark.slow
async def test_a_mail_is_one_trace_through_three_processes(
    site: Site, collector: FakeCollector, postgres: PostgresServer
) -> None:
    name = await postgres.create()
    url = postgres.url(name)
    assert await migrate(site, url) == 0
    make_sealing_keys(site)
    async with AsyncExitStack() as stack:
        for role, port in zip(("api", "watch", "push"), free_ports(3), strict=True):
            environ = {
                **site.environ,
                **tracing(collector),
                "RELAY__DATABASE__URL": url.replace("postgres@", f"relay_{role}@"),
                "RELAY__OPS__PORT": str(port),
            }
            if role != "watch":
                environ["RELAY__SEALING__PRIVATE_KEY_FILE"] = "state/elsewhere.pem"
            await stack.enter_async_context(open_relay(site.sandbox.toml, port, role=role, environ=environ))
        ids = await push_a_mail(site)

    check(collector, ids)
    assert {each["relay.role"] for each in collector.resources()} == {"watch", "push"}
    await postgres.drop(name)


@pytest.mark.slow
async def test_a_collector_that_is_away_delays_no_push(site: Site, collector: FakeCollector) -> None:
    site.environ = {**site.environ, **tracing(collector), "RELAY__TRACING__ENDPOINT": "http://127.0.0.1:9"}
    async with site.relay():
        await push_a_mail(site)

    log = (site.sandbox.folder / "relay.log").read_text()
    await until(lambda: "traces dropped" in log)
    assert log.count("traces dropped") == 1
    assert "Traceback" not in log
