"""Tests of names: what the doctor says of name servers that are silent, or know no such name."""

import asyncio
import errno
import socket
from collections.abc import Sequence

import pytest

from eas_watcher.tools.probe.finding import Grade
from eas_watcher.transport.lookups import AddressInfo
from relay.doctor.reaching import LOOKUP, Place, in_words, place_of, reach
from relay.network.route import Route
from relay.process.clock import now

MAIL = Place("servers.main", "mail.example.com", 443)
V4: AddressInfo = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 443))


@pytest.mark.looptime
async def test_name_servers_that_do_not_answer_are_not_waited_for_long() -> None:
    async def hang(_host: str, _port: int) -> Sequence[AddressInfo]:
        await asyncio.Event().wait()
        return ()

    way = await reach(MAIL, now, hang)

    (finding,) = way.findings
    assert (finding.check, finding.grade, way.open) == ("DNS", Grade.BAD, False)
    assert "no name server answers" in finding.remedy
    assert asyncio.get_running_loop().time() == LOOKUP


async def test_a_source_address_of_the_other_kind_is_named_with_its_setting() -> None:
    async def known(_host: str, _port: int) -> Sequence[AddressInfo]:
        return [V4]

    place = Place(
        "servers.main", "mail.example.com", 443, route=Route(None, ("2001:db8::1",)), source_setting="sources"
    )
    way = await reach(place, now, known)

    assert [finding.check for finding in way.findings] == ["DNS", "TCP"]
    assert "no address that 2001:db8::1 can reach" in way.findings[1].text
    assert "sources" in way.findings[1].remedy


def test_a_failed_connection_is_said_in_words() -> None:
    assert in_words(ConnectionRefusedError()) == "refuses the connection"
    assert in_words(OSError(errno.EHOSTUNREACH, "x")) == "cannot be reached: no route leads there"
    assert in_words(OSError(errno.EPERM, "Operation not permitted")) == "cannot be reached (Operation not permitted)"


def test_a_url_names_host_and_port() -> None:
    assert place_of("fcm.url", "https://fcm.example.com:8443/v1", None, "").port == 8443
    assert place_of("fcm.url", "https://fcm.example.com", None, "").port == 443
