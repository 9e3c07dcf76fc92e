"""Sends spans to an OpenTelemetry collector [OTLP 1.x over HTTP], the optional extra `otel`; the only importer of it.

The SDK gathers spans and calls the exporter in its own thread. The exporter is ours: that of the SDK's authors follows
redirects and takes proxies, CAs and headers from the environment, so it would ask hosts that no setting names. Requests
go from the event loop, by the same connections and proxies as those to providers.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, StatusCode, TraceFlags, set_span_in_context

from eas_watcher.proxy.faults import NotConnected
from eas_watcher.transport.tls import in_words
from relay.domain.traces import Span, Tracing
from relay.network.posting import Poster
from relay.network.route import Route

log = logging.getLogger(__name__)

HELD: Final = 4096
"""Spans that wait in memory to be sent; of more the oldest are dropped."""
BATCH: Final = 512  # spans per request
EVERY: Final = 5_000  # milliseconds between two requests, if no batch is full before
PATIENCE: Final = 5.0  # seconds for a request
BUSY: Final = 1.0  # seconds for which the event loop may be busy with other work
GOODBYE: Final = 2.0  # seconds in which the last spans are sent when the process ends
TYPE: Final = "application/x-protobuf"


class Collector:
    """The way of spans to one collector; it drops what cannot be sent, and nothing waits for it."""

    def __init__(self, tracing: Tracing, role: str, version: str, node: str) -> None:
        """Open the way; spans are those of a process with this role, version and name. Raises OSError for a CA.

        Requests go from the event loop that runs now.
        """
        self._ids = _GivenIds()
        self._exporter = _Exporter(tracing, asyncio.get_running_loop())
        names = {"service.name": "push-relay", "service.version": version, "service.instance.id": node}
        # Not Resource.create: it adds what the environment says.
        resource = Resource({**names, "relay.role": role})
        self._provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False, id_generator=self._ids)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self._exporter, max_queue_size=HELD, schedule_delay_millis=EVERY, max_export_batch_size=BATCH
            )
        )
        self._tracer = self._provider.get_tracer("relay", version)

    def emit(self, span: Span) -> None:
        """Take a span; it is sent later."""
        self._ids.trace, self._ids.span = span.trace, span.id
        around = None
        if span.parent is not None:
            known = SpanContext(span.trace, span.parent, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
            around = set_span_in_context(NonRecordingSpan(known))
        made = self._tracer.start_span(
            span.name, around, attributes=span.attributes, start_time=_nanoseconds(span.began)
        )
        if span.failed:
            made.set_status(StatusCode.ERROR)
        made.end(_nanoseconds(span.ended))

    def close(self) -> None:
        """Send what waits, for some seconds at most; blocks meanwhile, in another thread than the event loop's."""
        self._exporter.ends_at = time.monotonic() + GOODBYE
        self._provider.shutdown()


class _GivenIds(IdGenerator):
    """Gives the next span the ids that are set."""

    trace = 1
    span = 1

    def generate_trace_id(self) -> int:
        return self.trace

    def generate_span_id(self) -> int:
        return self.span


class _Exporter(SpanExporter):
    """Posts batches to the collector, each over a connection of its own; is called in the thread of the processor."""

    def __init__(self, tracing: Tracing, loop: asyncio.AbstractEventLoop) -> None:
        self._tracing = tracing
        self._loop = loop
        self._host = urlsplit(tracing.endpoint).netloc
        self._headers = {**tracing.headers, "Content-Type": TYPE}
        self._poster = Poster(tracing.ca_file, 1, Route(tracing.proxy, tracing.sources), kept=0.0)
        self.ends_at: float | None = None
        """When to give up, by the monotonic clock; None: not yet."""
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        left = PATIENCE if self.ends_at is None else min(PATIENCE, self.ends_at - time.monotonic())
        if left <= 0:
            return SpanExportResult.FAILURE
        try:
            status = self._post(encode_spans(spans).SerializeToString(), left)
        except NotConnected as error:
            reason = f"{error.reason}: {error.remedy}"
        except ssl.SSLError as error:
            reason = in_words(error)
        except (OSError, aiohttp.ClientError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        else:
            reason = "" if 200 <= status < 300 else f"HTTP {status}"  # noqa: PLR2004  # [RFC 9110 15.3]: successful
        if reason and not self._failing:
            # One line for one outage; a success ends it.
            log.warning("traces dropped", extra={"host": self._host, "reason": reason})
        elif self._failing and not reason:
            log.info("traces are taken again", extra={"host": self._host})
        self._failing = bool(reason)
        return SpanExportResult.FAILURE if reason else SpanExportResult.SUCCESS

    def _post(self, body: bytes, seconds: float) -> int:
        """Return the status of the answer; redirects are not followed."""
        asking = asyncio.run_coroutine_threadsafe(self._ask(body, seconds), self._loop)
        try:
            return asking.result(seconds + BUSY)
        finally:
            asking.cancel()

    async def _ask(self, body: bytes, seconds: float) -> int:
        async with asyncio.timeout(seconds):
            return (await self._poster.post(self._tracing.endpoint, self._headers, body)).status


def _nanoseconds(moment: datetime) -> int:
    """Return a moment as nanoseconds since 1970."""
    seconds = int(moment.timestamp())
    return seconds * 1_000_000_000 + moment.microsecond * 1_000
