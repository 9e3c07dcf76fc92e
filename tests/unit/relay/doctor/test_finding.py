"""Tests of the lines and documents of findings."""

from eas_watcher.tools.probe.finding import Grade
from relay.doctor.finding import Finding, Subject, healthy, sentence

TLS = Subject("TLS", "servers.main")


def test_a_finding_is_one_line_with_its_remedy() -> None:
    line = TLS.bad("certificate not trusted", "name the CA in ca_file").line()

    assert line.split(maxsplit=3)[:3] == ["bad", "TLS", "servers.main"]
    assert line.endswith("certificate not trusted. Name the CA in ca_file.")


def test_a_finding_shows_how_long_it_took() -> None:
    assert TLS.good("TLSv1.3", 0.0123).line().endswith("TLSv1.3 (0.012 s)")


def test_what_a_server_sent_breaks_no_line() -> None:
    assert "\n" not in TLS.good("a\nb\x1b[31m").line()
    assert "a?b?[31m" in TLS.good("a\nb\x1b[31m").line()


def test_a_finding_is_a_document_for_programs() -> None:
    assert TLS.of("TCP").note("slow", "wait").document() == {
        "check": "TCP",
        "subject": "servers.main",
        "grade": "note",
        "text": "slow",
        "remedy": "Wait.",
        "seconds": None,
    }
    assert TLS.good("TLSv1.3", 0.01234).document()["seconds"] == 0.012


def test_only_what_is_bad_is_not_healthy() -> None:
    assert healthy([TLS.good(""), TLS.note("", ""), TLS.skipped("")])
    assert not healthy([TLS.good(""), Finding("TLS", "", Grade.BAD, "")])


def test_a_sentence_has_a_capital_and_a_full_stop() -> None:
    assert [sentence("do it"), sentence("Done."), sentence("")] == ["Do it.", "Done.", ""]
