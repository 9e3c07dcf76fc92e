"""Own what a service account of Google's is good for: it names the project, makes the body of a push, and gets tokens.

pyfcm 2.1.1 sends with blocking calls, sleeps and repeats without bound, and loses FCM's error codes; google-auth asks
for the tokens of service accounts with blocking calls only. So pyfcm makes bodies and the address, google-auth reads
the account and signs for it, and both send nothing.
"""

import json
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from google.auth import jwt
from google.oauth2 import service_account
from pyfcm import FCMNotification

from relay.push.payload import FcmMessage
from relay.security.certificates import is_rsa

SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
AUDIENCE: Final = "https://oauth2.googleapis.com/token"
"""What an assertion names whatever endpoint it is sent to [Google: OAuth 2.0 for server to server applications]."""
GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
LIFE: Final = 3600
"""Seconds an assertion may live at most [Google: OAuth 2.0 for server to server applications]."""


class ServiceAccount:
    """Be one service account."""

    def __init__(self, content: bytes, endpoint: str) -> None:
        """Read Google's JSON; raises ValueError (its text tells what is wrong). `endpoint` is FCM's URL."""
        # Both libraries are untyped; what comes out of them is typed again where it is used.
        credentials_class: Any = service_account.Credentials
        try:
            account = json.loads(content)
        except RecursionError as error:
            raise ValueError("is no JSON that anybody wrote") from error
        if not isinstance(account, dict):
            raise ValueError("holds no JSON object")  # noqa: TRY004  # the text is wrong, no type
        key = account.get("private_key")
        if isinstance(key, str) and not is_rsa(key.encode()):
            raise ValueError("has a private_key that is no RSA key")
        credentials: Any = credentials_class.from_service_account_info(account, scopes=[SCOPE])
        if not credentials.project_id:
            raise ValueError("names no project_id")
        if not _secure(str(account["token_uri"])):
            raise ValueError("has a token_uri that is not https")
        self._credentials = credentials
        self._messages: Any = FCMNotification(credentials=credentials)
        self._messages.FCM_END_POINT_BASE = f"{endpoint.rstrip('/')}/v1/projects"
        self.url = str(self._messages.fcm_end_point)
        """Where pushes of this account's project are sent."""
        self.token_uri = str(account["token_uri"])
        """Where its access tokens are made."""

    def body(self, device_token: str, message: FcmMessage) -> bytes:
        """Write the body of a push."""
        body: bytes = self._messages.parse_payload(
            fcm_token=device_token, data_payload=message.data, android_config=message.android
        )
        return body

    def assertion(self, now: datetime) -> bytes:
        """Write the form that asks for an access token [RFC 7523 2.1]; signing takes a millisecond or two."""
        issued = int(now.timestamp())
        claims = {
            "iss": self._credentials.service_account_email,
            "aud": AUDIENCE,
            "iat": issued,
            "exp": issued + LIFE,
            "scope": SCOPE,
        }
        sign: Any = jwt.encode
        return urlencode({"grant_type": GRANT, "assertion": sign(self._credentials.signer, claims)}).encode()


def _secure(url: str) -> bool:
    """Tell whether what is sent to a URL is encrypted, or stays on this host as in a sandbox."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in {"localhost", "127.0.0.1", "::1"})
