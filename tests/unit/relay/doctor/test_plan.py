"""Tests of what the clocks of peers and the end of a certificate mean."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from eas_watcher.peer_clocks import PeerClocks
from eas_watcher.tools.probe.finding import Grade
from relay.doctor.plan import judge_clock, judge_expiry
from tests.fakes.chains import Authority

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def clock(*hours: float) -> Grade:
    """Return the grade of a host whose peers' clocks differ by so many hours."""
    clocks = PeerClocks(lambda: NOW)
    for number, ahead in enumerate(hours):
        moment = NOW + timedelta(hours=ahead)
        clocks.answered(f"mail{number}.example.com", format_datetime(moment, usegmt=True), 0.1)
    return judge_clock(clocks).grade


def test_the_clock_is_wrong_if_no_peer_agrees_with_it() -> None:
    assert clock() is Grade.SKIPPED
    assert clock(0, 0) is Grade.GOOD
    assert clock(2) is Grade.BAD
    assert clock(2, 2) is Grade.BAD
    assert clock(0, 2) is Grade.NOTE


@pytest.mark.parametrize(("days", "grade"), [(90, Grade.GOOD), (5, Grade.NOTE)])
def test_a_push_certificate_is_noted_before_its_end(tmp_path: Path, days: int, grade: Grade) -> None:
    file = tmp_path / "push.pem"
    file.write_bytes(Authority().server(days=(-10, days)))

    (finding,) = judge_expiry("apns.certificate_file", file, lambda: datetime.now(UTC))  # noqa: TID251 -- as `chains`

    assert (finding.check, finding.subject, finding.grade) == ("certificate", "apns.certificate_file", grade)
