"""How findings are written, and what they add up to."""

from datetime import UTC, datetime, timedelta

import pytest

from eas_watcher.tools.probe.device import probe_device
from eas_watcher.tools.probe.finding import Finding, Grade, works
from eas_watcher.tools.probe.steps import EXPIRY, judge_tls
from eas_watcher.transport.tls_probe import Handshake

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def test_a_finding_is_one_line_whatever_the_server_says() -> None:
    finding = Finding("OPTIONS", Grade.GOOD, "build 15.2\n\x1b[31mred", (0.5, 0.25))

    assert finding.line() == "good     OPTIONS     build 15.2??[31mred (0.500, 0.250 s)"


@pytest.mark.parametrize(
    ("grade", "good"), [(Grade.GOOD, True), (Grade.NOTE, True), (Grade.SKIPPED, True), (Grade.BAD, False)]
)
def test_one_bad_step_is_enough(grade: Grade, good: bool) -> None:
    assert works([Finding("TLS", Grade.GOOD, "fine"), Finding("Ping", grade, "so so")]) is good


@pytest.mark.parametrize(
    ("left", "grade"), [(EXPIRY + timedelta(hours=1), Grade.GOOD), (EXPIRY - timedelta(hours=1), Grade.NOTE)]
)
def test_a_certificate_that_expires_soon_is_noted(left: timedelta, grade: Grade) -> None:
    assert judge_tls(Handshake("TLSv1.3", NOW + left), NOW).grade is grade


def test_the_finding_of_tls_says_which_http_is_spoken() -> None:
    expiry = NOW + 2 * EXPIRY
    assert "TLSv1.3, HTTP/2, trusted" in judge_tls(Handshake("TLSv1.3", expiry, http2=True), NOW).text
    assert judge_tls(Handshake("TLSv1.3", None), NOW).text == "TLSv1.3, HTTP/1.1"


def test_what_newer_software_refuses_is_noted() -> None:
    finding = judge_tls(Handshake("TLSv1.3", NOW + 2 * EXPIRY, "Basic Constraints of CA cert not marked critical"), NOW)

    assert finding.grade is Grade.NOTE
    assert "newer software refuses it: Basic Constraints of CA cert not marked critical" in finding.text


def test_a_probes_device_is_constant_and_of_its_own() -> None:
    url = "https://mail.example.com/Microsoft-Server-ActiveSync"
    device = probe_device(url, "ann")

    assert device == probe_device(url, "ann")
    assert len({device, probe_device(url, "ben"), probe_device(f"{url}2", "ann")}) == 3
    assert device.isalnum()
    assert device.isascii()
    assert len(device) <= 32
