"""Own how a caller shows the secret of a registration: `Authorization: Bearer <secret>` [RFC 6750 2.1]."""

import re
from typing import Final

from relay.domain.model import RegistrationId
from relay.registration.errors import NotAuthorized
from relay.registration.secret import Access

CHALLENGE: Final = 'Bearer realm="registration"'
_BEARER: Final = re.compile(r"bearer +([A-Za-z0-9._~+/=-]{1,512})", re.ASCII | re.IGNORECASE)


def read_bearer(registration_id: str, header: str | None) -> Access:
    """Read the header; raises NotAuthorized when it is missing or of another kind."""
    found = None if header is None else _BEARER.fullmatch(header.strip())
    if found is None:
        raise NotAuthorized("this needs the header Authorization: Bearer, with the secret of the registration")
    return Access(RegistrationId(registration_id), found[1])
