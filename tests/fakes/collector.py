"""An OpenTelemetry collector on loopback: it reads what is posted with the protocol's own messages."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.fakes.tls import Authority, serving


@dataclass
class FakeCollector:
    """What the collector got, and how it answers."""

    url: str = ""
    ca_file: Path = Path()
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    answer: web.Response | None = None
    """None: it takes everything."""

    @property
    def spans(self) -> list[Span]:
        """All spans, in the order in which they came."""
        found = []
        for body in self.bodies:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                found += [span for scope in resource.scope_spans for span in scope.spans]
        return found

    def named(self, name: str) -> list[Span]:
        """Return the spans of a name."""
        return [span for span in self.spans if span.name == name]

    def resources(self) -> list[dict[str, str]]:
        """Return the attributes of the process of each request."""
        return [
            {each.key: each.value.string_value for each in resource.resource.attributes}
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        ]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Take a request."""
        self.paths.append(request.path)
        self.headers.append(dict(request.headers))
        body = await request.read()
        if self.answer is not None:
            # An aiohttp response serves one request.
            return web.Response(status=self.answer.status, headers=dict(self.answer.headers))
        self.bodies.append(body)
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf"
        )


def attributes(span: Span) -> dict[str, str | int]:
    """Return the attributes of a span."""
    return {
        each.key: each.value.int_value if each.value.HasField("int_value") else each.value.string_value
        for each in span.attributes
    }


@asynccontextmanager
async def collecting(folder: Path) -> AsyncIterator[FakeCollector]:
    """Run a collector over TLS; its CA is written into a folder."""
    authority, collector = Authority(), FakeCollector()
    collector.ca_file = folder / "collector-ca.pem"
    authority.ca.cert_pem.write_to_path(str(collector.ca_file))
    async with serving(authority, collector.handle) as url:
        collector.url = url
        yield collector
