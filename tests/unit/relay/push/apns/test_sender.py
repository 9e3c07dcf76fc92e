from dataclasses import replace
from datetime import timedelta
from uuid import RFC_4122, UUID

import pytest

from eas_watcher.names import MailboxId
from relay.domain.model import Mark
from relay.push.apns.sender import message_id
from tests.unit.relay.push.pushes import BEGAN, due_push


def test_a_repetition_has_the_same_id_whatever_changed_in_the_row() -> None:
    push = due_push()

    assert message_id(push) == message_id(replace(push, attempts=7, device_token="ff"))
    id_ = UUID(message_id(push))
    assert (str(id_), id_.version, id_.variant) == (message_id(push), 8, RFC_4122)


@pytest.mark.parametrize(
    "other",
    [
        due_push(2),
        due_push(mark=Mark.TASKS),
        due_push(generation=2),
        due_push(first_at=BEGAN + timedelta(microseconds=1)),
        due_push(mailbox_id=MailboxId("another")),  # which Apple does not know, so that it cannot try moments
    ],
)
def test_a_push_of_another_change_has_another_id(other: object) -> None:
    assert message_id(due_push()) != message_id(other)  # type: ignore[arg-type]  # they are due pushes
