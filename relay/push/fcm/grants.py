"""The meaning of the answers of Google's token endpoint [RFC 6749 5; RFC 7523]."""

import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from eas_watcher.retry_after import retry_after
from relay.domain.outcome import Reach, Refused, RetryLater
from relay.push.fcm.answers import OK, SERVER_ERROR, TIMED_OUT, TOO_MANY
from relay.push.fcm.errors import CODE
from relay.push.fcm.tokens import MARGIN, AccessToken, TokenNotGiven

TOKEN: Final = re.compile(r"[\x21-\x7e]{1,8192}", re.ASCII)
"""Texts that may stand in a header [RFC 6750 2.1 allows less]."""
LIFE: Final = 3600.0
"""Lifetime in seconds of a token that comes without one."""
LONGEST: Final = 86400.0
"""Lifetime in seconds at most: a token with a longer one is renewed daily."""
SHORTEST: Final = 3 * MARGIN
"""Lifetime in seconds at least: a shorter one would end before its use, and each push would ask for a token."""
PASSING: Final = frozenset({"internal_failure", "server_error", "temporarily_unavailable"})
"""Codes that pass by themselves, whatever the HTTP status."""

_KEY: Final = "check {file}: its key may be deleted or disabled; check the clock of this host too"
_DOWN: Final = "Google's token endpoint is in trouble: nothing to do here; look at Google's status page if it lasts"
_SHORT: Final = (
    f"access tokens are given for less than {SHORTEST:.0f} s, Google's live an hour: see what answers at token_uri in "
    "{file}, and any proxy on the way"
)
_FOREIGN: Final = (
    "something that is not Google's token endpoint answers: check token_uri in {file} and any proxy on the way"
)


def read_grant(
    status: int, body: bytes, headers: Mapping[str, str], now: datetime, setting: str = "fcm.service_account_file"
) -> AccessToken:
    """Return the token in an answer; raises TokenNotGiven, which keeps only the code of a refusal.

    `setting` names the file of the service account in relay.toml, for remedies.
    """
    answer = _document(body)
    if status == OK:
        token = answer.get("access_token")
        if isinstance(token, str) and TOKEN.fullmatch(token):
            life = _life(answer.get("expires_in"))
            if life < SHORTEST:
                raise TokenNotGiven(_refused("token-too-short-lived", _SHORT, setting))
            return AccessToken(token, now + timedelta(seconds=life))
        raise TokenNotGiven(_refused("token-not-from-google", _FOREIGN, setting))
    code = answer.get("error")
    known = isinstance(code, str) and CODE.fullmatch(code) is not None
    reason = f"token-refused: {code if known else f'http-{status}'}"
    if code in PASSING or status in {TIMED_OUT, TOO_MANY} or status >= SERVER_ERROR:
        after = retry_after(headers.get("retry-after", ""), now)
        raise TokenNotGiven(RetryLater(reason, after, _DOWN, provider=True))
    raise TokenNotGiven(_refused(reason, _KEY if known else _FOREIGN, setting))


def _refused(reason: str, remedy: str, setting: str) -> Refused:
    """Return the outcome of all pushes while there is no token; it says nothing about FCM, which was not asked."""
    return Refused(reason, remedy.replace("{file}", setting), channel=True, reach=Reach.UNANSWERED)


def _life(value: object) -> float:
    """Return the lifetime of a token in seconds; a value that is no positive number counts as missing."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
        return min(float(value), LONGEST)
    return LIFE


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
