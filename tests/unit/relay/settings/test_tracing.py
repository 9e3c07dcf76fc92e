from pathlib import Path
from typing import Final

import pytest

from relay.domain.model import Role
from relay.domain.traces import Tracing
from relay.settings import tracing
from tests.installation import GOOD, Installation

URL: Final = "https://otel.example.com:4318/v1/traces"
SHARED: Final = {"RELAY__DATABASE__URL": "postgresql://relay@db.example.com/relay"}


@pytest.fixture
def site(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def configured(site: Installation, *lines: str) -> Installation:
    site.configure("\n".join((GOOD, "[tracing]", *lines)))
    return site


def test_without_an_endpoint_nothing_is_traced(site: Installation) -> None:
    assert configured(site).load().tracing is None


def test_headers_come_from_a_file_and_are_not_shown(site: Installation) -> None:
    site.write("otel.headers", b"Authorization: Bearer canary\r\n\nX-Scope-OrgID:\tmail 1 \n")
    lines = (f'endpoint = "{URL}"', 'headers_file = "otel.headers"', "sample_ratio = 0.5")

    found = configured(site, *lines).load()

    headers = {"Authorization": "Bearer canary", "X-Scope-OrgID": "mail 1"}
    assert found.tracing == Tracing(URL, None, headers, 0.5)
    assert "canary" not in repr(found)


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("https://otel.example.com", "https://otel.example.com/v1/traces"),
        ("https://otel.example.com:4318/", "https://otel.example.com:4318/v1/traces"),
        ("https://otel.example.com/otlp/traces?a=b", "https://otel.example.com/otlp/traces?a=b"),
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
    ],
)
def test_a_url_without_a_path_gets_that_of_the_protocol(site: Installation, given: str, asked: str) -> None:
    found = configured(site, f'endpoint = "{given}"').load()

    assert found.tracing is not None
    assert found.tracing.endpoint == asked
    assert found.tracing.ratio == 0.1


@pytest.mark.parametrize(
    "url",
    [
        "http://otel.example.com:4318",
        "otel.example.com:4318",
        "https://user:canary@otel.example.com",  # pragma: allowlist secret
        "https://otel.example.com/#x",
        "grpc://otel.example.com",
        "https://",
    ],
)
def test_spans_go_over_tls_or_stay_on_this_host(site: Installation, url: str) -> None:
    ((key, wrong),) = configured(site, f'endpoint = "{url}"').faults()

    assert key == "tracing.endpoint"
    assert "canary" not in wrong


def test_what_belongs_to_an_endpoint_needs_one(site: Installation) -> None:
    faults = configured(site, 'ca_file = "ca.pem"', 'headers_file = "otel.headers"', 'proxy = "none"').faults()

    assert [key for key, _ in faults] == ["tracing.ca_file", "tracing.proxy", "tracing.headers_file"]


@pytest.mark.parametrize(
    ("role", "own", "through"),
    [
        (Role.PUSH, "", "proxy.example.com:3128"),
        (Role.ALL, "", "proxy.example.com:3128"),
        (Role.WATCH, "", None),  # [network] is not for it
        (Role.PUSH, 'proxy = "none"', None),
        (Role.PUSH, 'proxy = "socks5h://other.example.com:1080"', "other.example.com:1080"),
        (Role.WATCH, 'proxy = "socks5h://other.example.com:1080"', "other.example.com:1080"),
    ],
)
def test_traces_take_the_way_of_pushes_unless_they_have_their_own(
    site: Installation, role: Role, own: str, through: str | None
) -> None:
    network = '[network]\nproxy = "http://proxy.example.com:3128"\nsource_address = ["192.0.2.1"]'

    found = configured(site, f'endpoint = "{URL}"', own, network).load(role, SHARED).tracing

    assert found is not None
    assert (None if found.proxy is None else str(found.proxy)) == through
    assert found.sources == (() if role is Role.WATCH else ("192.0.2.1",))


@pytest.mark.parametrize("url", ["http://127.0.0.1:4318", "https://localhost:4318"])
def test_no_proxy_is_on_the_way_to_a_collector_on_this_host(site: Installation, url: str) -> None:
    lines = (f'endpoint = "{url}"', '[network]\nproxy = "http://proxy.example.com:3128"')
    found = configured(site, *lines).load().tracing
    assert found is not None
    assert (found.proxy, found.sources) == (None, ())

    faults = configured(site, f'endpoint = "{url}"', 'proxy = "http://proxy.example.com:3128"').faults()
    assert [key for key, _ in faults] == ["tracing.proxy"]


@pytest.mark.parametrize(
    "line", ["canary", "Canary token: x", "X-Canary:", "X-Canary: \x07", "X: caf\xe9 canary", ": x"]
)
def test_a_line_that_is_no_header_is_named_by_its_number(site: Installation, line: str) -> None:
    site.write("otel.headers", f"A: b\n{line}\n".encode())

    ((key, wrong),) = configured(site, f'endpoint = "{URL}"', 'headers_file = "otel.headers"').faults()

    assert key == "tracing.headers_file"
    assert "line 2 of" in wrong
    assert "anary" not in wrong


@pytest.mark.parametrize("name", ["Host", "content-length", "Content-Type", "Transfer-Encoding", "Connection"])
def test_headers_that_the_relay_writes_itself_are_refused(site: Installation, name: str) -> None:
    site.write("otel.headers", f"{name}: x\n".encode())

    ((key, wrong),) = configured(site, f'endpoint = "{URL}"', 'headers_file = "otel.headers"').faults()

    assert (key, "writes itself" in wrong) == ("tracing.headers_file", True)


def test_a_file_of_headers_is_a_text_that_only_the_relay_reads(site: Installation) -> None:
    lines = (f'endpoint = "{URL}"', 'headers_file = "otel.headers"')
    assert [key for key, _ in configured(site, *lines).faults()] == ["tracing.headers_file"]
    site.write("otel.headers", b"A: b\n", mode=0o644)
    assert [key for key, _ in configured(site, *lines).faults()] == ["tracing.headers_file"]
    site.write("otel.headers", b"\xff\xfeA\x00")
    assert [key for key, _ in configured(site, *lines).faults()] == ["tracing.headers_file"]


@pytest.mark.parametrize("ratio", ["0", "1.5", "-1", '"much"'])
def test_a_share_is_above_zero_and_at_most_one(site: Installation, ratio: str) -> None:
    assert [key for key, _ in configured(site, f"sample_ratio = {ratio}").faults()] == ["tracing.sample_ratio"]


def test_a_missing_library_is_named_with_its_remedy(site: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "find_spec", lambda _: None)

    ((key, wrong),) = configured(site, f'endpoint = "{URL}"').faults()

    assert (key, wrong) == ("tracing.endpoint", "is set, and the library for it is not installed")


def test_a_role_that_traces_nothing_reads_no_secret_of_it(site: Installation) -> None:
    lines = (f'endpoint = "{URL}"', 'headers_file = "missing.headers"')

    assert configured(site, *lines).load(Role.API, SHARED).tracing is None
