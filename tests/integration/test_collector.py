"""Spans on their way to a collector: over TLS, in batches, and with a collector that is away or misbehaves."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
import trustme
from aiohttp import web
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from eas_watcher.proxy.proxy import Proxy
from relay.domain.traces import Span, Tracing
from relay.network.collector import HELD, Collector
from tests.fakes.collector import FakeCollector, attributes, collecting
from tests.fakes.proxy import ConnectProxy, connect_proxy, says
from tests.ports import free_port

BEGAN: Final = datetime(2026, 11, 29, 12, 0, 0, 123456, UTC)
SPAN: Final = Span("push", 0xA1, 0xB2, 0xC3, BEGAN, BEGAN + timedelta(seconds=1), {"relay.mark": "email"}, failed=True)


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeCollector]:
    async with collecting(tmp_path) as running:
        yield running


def opened(fake: FakeCollector, headers: Mapping[str, str] | None = None, ca_file: Path | None = None) -> Collector:
    tracing = Tracing(f"{fake.url}/v1/traces?a=b", ca_file or fake.ca_file, headers or {})
    return Collector(tracing, "push", "1.2.3", "node-1")


async def told(collector: Collector, *spans: Span) -> float:
    """Hand over spans and close; return how many seconds both took."""
    began = time.monotonic()
    for span in spans:
        collector.emit(span)
    await asyncio.to_thread(collector.close)
    return time.monotonic() - began


async def test_a_span_arrives_as_it_is(fake: FakeCollector) -> None:
    await told(opened(fake, {"Authorization": "Bearer canary"}), SPAN)

    (span,) = fake.spans
    assert (span.name, span.status.code) == ("push", Status.STATUS_CODE_ERROR)
    ids = (span.trace_id, span.span_id, span.parent_span_id)
    assert [int.from_bytes(each, "big") for each in ids] == [0xA1, 0xB2, 0xC3]
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (1795953600123456000, 1795953601123456000)
    assert attributes(span) == {"relay.mark": "email"}
    assert fake.paths == ["/v1/traces"]
    assert fake.headers[0]["Authorization"] == "Bearer canary"
    assert fake.headers[0]["Content-Type"] == "application/x-protobuf"
    assert fake.resources() == [
        {
            "service.name": "push-relay",
            "service.version": "1.2.3",
            "service.instance.id": "node-1",
            "relay.role": "push",
        }
    ]


async def test_spans_go_in_batches(fake: FakeCollector) -> None:
    await told(opened(fake), *(SPAN for _ in range(700)))

    assert len(fake.spans) == 700
    assert len(fake.bodies) == 2


async def test_neither_environment_nor_redirect_sends_spans_elsewhere(
    fake: FakeCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = free_port()
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        monkeypatch.setitem(os.environ, name, f"http://127.0.0.1:{closed}")
    monkeypatch.setitem(os.environ, "OTEL_RESOURCE_ATTRIBUTES", "user.name=canary")
    await told(opened(fake), SPAN)
    assert len(fake.spans) == 1
    assert "canary" not in repr(fake.resources())

    fake.answer = web.Response(status=307, headers={"Location": f"{fake.url}/elsewhere"})
    await told(opened(fake), SPAN)
    assert fake.paths == ["/v1/traces", "/v1/traces"]


async def test_a_collector_that_another_ca_certified_gets_nothing(
    fake: FakeCollector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))

    await told(opened(fake, {"Authorization": "canary"}, other), SPAN)

    assert fake.paths == []
    (record,) = [record for record in caplog.records if record.name == "relay.network.collector"]
    assert record.message == "traces dropped"
    assert "certificate not trusted" in record.__dict__["reason"]


async def test_an_outage_is_logged_once_and_its_end_too(fake: FakeCollector, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "relay.network.collector")
    collector = opened(fake)
    fake.answer = web.Response(status=503)
    for _ in range(2):
        collector.emit(SPAN)
        await asyncio.to_thread(collector._provider.force_flush)
    fake.answer = None
    collector.emit(SPAN)
    await told(collector)

    records = [record for record in caplog.records if record.name == "relay.network.collector"]
    assert [record.message for record in records] == ["traces dropped", "traces are taken again"]
    assert records[0].__dict__["reason"] == "HTTP 503"
    assert len(fake.spans) == 1


async def test_a_collector_that_does_not_answer_holds_up_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connections wait in the kernel
        port = silent.getsockname()[1]
        collector = Collector(Tracing(f"http://127.0.0.1:{port}/v1/traces", None), "push", "1", "n")
        began = time.monotonic()
        for _ in range(3 * HELD):
            collector.emit(SPAN)
        taken = time.monotonic() - began

        assert taken < 30
        assert await told(collector) < 20


async def test_a_collector_that_is_away_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    closed = free_port()
    collector = Collector(Tracing(f"http://127.0.0.1:{closed}/v1/traces", None), "push", "1", "n")

    assert await told(collector, SPAN) < 10
    assert [record.__dict__["reason"] for record in caplog.records] == ["Connection refused"]


async def test_spans_go_through_the_proxy_and_its_faults_are_named(
    fake: FakeCollector, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect_proxy(ConnectProxy()) as running:
        proxy = Proxy("127.0.0.1", running.port, "network.proxy")
        tracing = Tracing(f"{fake.url}/v1/traces", fake.ca_file, {"Authorization": "canary"}, proxy=proxy)
        await told(Collector(tracing, "push", "1.2.3", "node-1"), SPAN)
        running.opened = b"HTTP/1.1 403 Forbidden\r\n\r\n"
        running.talk = says(running.opened)
        await told(Collector(tracing, "push", "1.2.3", "node-1"), SPAN)

    assert len(fake.spans) == 1
    assert running.targets == [fake.url.removeprefix("https://")] * 2
    assert b"canary" not in b"".join(running.heads)
    assert [record.__dict__["reason"].partition(":")[0] for record in caplog.records] == ["proxy-denied"]
