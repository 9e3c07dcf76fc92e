from random import Random

import pytest

from eas_watcher.commands.request import HttpReply
from eas_watcher.errors import Unreachable
from eas_watcher.machine.state import RATE
from eas_watcher.runtime.client import EasClient, raise_for_cut
from eas_watcher.server.admissions import Admissions
from tests.fakes.eas import ScriptedTransport
from tests.unit.eas_watcher.running import account
from tests.unit.eas_watcher.watching import NOW


async def test_a_watched_mailbox_is_counted_where_it_is() -> None:
    admissions = Admissions(8, Random(1), lambda: NOW)
    client = EasClient(account(), ScriptedTransport(), admissions, RATE)
    client.watch_begins(refused=False)

    client.address("https://mail2.example.com/eas")
    assert {url: admission.watched for url, admission in admissions.items()} == {
        account().url: 0,
        "https://mail2.example.com/eas": 1,
    }

    client.watch_ends()
    assert [admission.watched for _, admission in admissions.items()] == [0, 0]
    client.address(None)
    assert client.url == account().url
    assert [admission.watched for _, admission in admissions.items()] == [0, 0]


@pytest.mark.parametrize("status", [502, 504])
def test_a_gateway_that_gives_up_a_held_request_cuts_it(status: int) -> None:
    with pytest.raises(Unreachable, match=str(status)) as caught:
        raise_for_cut(HttpReply(status, {}, b""), 30.0)

    assert (caught.value.survived, caught.value.reached) == (30.0, True)


@pytest.mark.parametrize(("status", "held"), [(502, 29.9), (504, 0.0), (500, 600.0), (503, 600.0), (200, 600.0)])
def test_any_other_answer_to_a_held_request_is_no_cut(status: int, held: float) -> None:
    raise_for_cut(HttpReply(status, {}, b""), held)
