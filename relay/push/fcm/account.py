"""A service account of Google's: it names the project, makes the body of a push, and signs requests for tokens.

pyfcm 2.1.1 sends with blocking calls, sleeps and repeats without bound, and loses FCM's error codes; google-auth asks
for the tokens of service accounts with blocking calls only. So pyfcm makes the body and the address, google-auth signs,
and both send nothing.
"""

import json
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from google.auth import jwt
from google.auth.crypt import RSASigner
from google.oauth2 import service_account
from pyfcm import FCMNotification

from relay.domain.fcm_device import FcmDevice
from relay.network.urls import secure_url
from relay.push.payload import FcmMessage
from relay.security.certificates import read_rsa_key

SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
AUDIENCE: Final = "https://oauth2.googleapis.com/token"
"""The audience of an assertion, whatever endpoint gets it [Google: OAuth 2.0 for server to server applications]."""
GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
LIFE: Final = 3600
"""Seconds an assertion may live at most [Google: OAuth 2.0 for server to server applications]."""
FIELDS: Final = ("client_email", "private_key", "project_id", "token_uri")
"""The fields of Google's JSON that the relay needs."""


class ServiceAccount:
    """One service account; two of them are equal if they come from the same JSON."""

    def __init__(self, content: bytes, endpoint: str) -> None:
        """Read Google's JSON; raises ValueError, whose text says what is wrong. `endpoint` is FCM's URL.

        The check of the RSA key takes 28 ms of a core or more: call this in a thread while pushes go on.
        """
        account = _fields(content)
        try:
            key = read_rsa_key(account["private_key"].encode())
        except ValueError as error:
            raise ValueError("has a private_key that is no RSA key") from error
        self.token_uri = account["token_uri"]
        """The URL where Google makes the account's access tokens."""
        if not secure_url(self.token_uri):
            raise ValueError("has a token_uri that is not https")
        self._content = content
        self._email = account["client_email"]
        # Both libraries are untyped; their results get types again where they are used.
        signer_class: Any = RSASigner
        credentials_class: Any = service_account.Credentials
        self._signer: Any = signer_class(key, account.get("private_key_id"))
        self._messages: Any = FCMNotification(
            credentials=credentials_class(
                self._signer, self._email, self.token_uri, scopes=[SCOPE], project_id=account["project_id"]
            )
        )
        self._messages.FCM_END_POINT_BASE = f"{endpoint.rstrip('/')}/v1/projects"
        self.url = str(self._messages.fcm_end_point)
        """The URL for pushes of this account's project."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ServiceAccount) and (self._content, self.url) == (other._content, other.url)

    def __hash__(self) -> int:
        return hash((self._content, self.url))

    def body(self, device_token: str, message: FcmMessage, *, sends: bool = True) -> bytes:
        """Return the body of a push, to a registration token or a FID; unless it `sends`, FCM only validates it."""
        device = FcmDevice.read(device_token)
        body: bytes = self._messages.parse_payload(
            fcm_token=device.name, data_payload=message.data, android_config=message.android, dry_run=not sends
        )
        if device.kind == "token":
            return body
        # pyfcm 2.1.1 knows no FIDs. A FID has no quotes, so the last "token": is the name of the field.
        before, _, after = body.rpartition(b'"token":')
        return b'%b"fid":%b' % (before, after)

    def assertion(self, now: datetime) -> bytes:
        """Return the form that asks for an access token [RFC 7523 2.1]; signing takes a millisecond or two."""
        issued = int(now.timestamp())
        claims = {"iss": self._email, "aud": AUDIENCE, "iat": issued, "exp": issued + LIFE, "scope": SCOPE}
        sign: Any = jwt.encode
        return urlencode({"grant_type": GRANT, "assertion": sign(self._signer, claims)}).encode()


def _fields(content: bytes) -> dict[str, str]:
    """Return the fields of Google's JSON that are texts; raises ValueError when a needed one is missing."""
    try:
        account = json.loads(content)
    except RecursionError as error:
        raise ValueError("is no JSON of a service account") from error
    if not isinstance(account, dict):
        raise ValueError("holds no JSON object")  # noqa: TRY004  # the text is wrong, not its type
    fields = {name: value for name, value in account.items() if isinstance(value, str)}
    missing = [name for name in FIELDS if not fields.get(name)]
    if missing:
        raise ValueError(f"names no {', no '.join(missing)}")
    return fields
