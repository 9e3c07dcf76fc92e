import re

import pytest
from push_relay_client import Identity, Registration


def test_an_identity_is_random_and_hides_its_secret() -> None:
    one, other = Identity.make(), Identity.make()

    assert re.fullmatch("[A-Za-z0-9_-]{24}", one.id)
    assert re.fullmatch("[A-Za-z0-9_-]{43}", one.secret)
    assert one.id != other.id
    assert one.secret != other.secret
    assert one.secret not in repr(one)


def test_what_the_relay_leaves_out_is_none() -> None:
    read = Registration.read({"id": "r", "state": "verifying", "mailbox": {"server": "s", "user": "ann"}, "remedy": 7})

    assert (read.remedy_by, read.mailbox_state, read.reason, read.credential_pending) == ("nobody", None, None, False)
    assert not read.quarantined


def test_another_answer_is_no_registration() -> None:
    with pytest.raises(ValueError, match="no registration"):
        Registration.read({"id": "r"})
