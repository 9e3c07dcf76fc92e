from http import HTTPStatus

from relay.api.operations import ALWAYS, BODY, OPENED, OPERATIONS, Operation, Reply
from relay.api.schema import ChangeBody, RegistrationBody

DONE = (Reply(HTTPStatus.OK, "done"),)


def test_names_and_places_are_used_once() -> None:
    assert len({row.name for row in OPERATIONS}) == len(OPERATIONS)
    assert len({(row.method, row.path) for row in OPERATIONS}) == len(OPERATIONS)


def test_every_operation_that_registers_may_demand_a_key() -> None:
    for row in OPERATIONS:
        registers = row.body is not None and issubclass(row.body, RegistrationBody)
        assert row.enrols == registers, row.name
        assert ("enrolment-refused" in row.codes) == registers, row.name


def test_a_body_and_a_secret_bring_their_problems_with_them() -> None:
    bare = Operation("bare", "GET", "/", "Bare", DONE)
    full = Operation("full", "PATCH", "/", "Full", DONE, ("busy", "not-active"), body=ChangeBody, secret=True)

    assert bare.codes == ALWAYS
    assert full.codes == (*ALWAYS, "cross-site", *BODY, *OPENED, "not-active")
