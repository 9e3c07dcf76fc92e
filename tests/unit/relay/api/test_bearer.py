import pytest

from relay.api.routes import read_bearer
from relay.domain.model import RegistrationId
from relay.registration.errors import NotAuthorized
from relay.registration.secret import Access


@pytest.mark.parametrize("header", ["Bearer s3cr-e_t", "bearer s3cr-e_t", "  Bearer   s3cr-e_t "])
def test_reads_the_secret(header: str) -> None:
    assert read_bearer("id", header) == Access(RegistrationId("id"), "s3cr-e_t")


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic c2VjcmV0", "Bearer a b", "Bearer pä", "Bearer " + "x" * 513]
)
def test_anything_else_is_not_authorized(header: str | None) -> None:
    with pytest.raises(NotAuthorized):
        read_bearer("id", header)
