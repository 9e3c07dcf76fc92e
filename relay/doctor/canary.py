"""The way of the canary's mails: the name and the port of canary.smtp_host, its TLS, and whether it offers a login."""

import asyncio
from collections.abc import Sequence
from typing import Final

from relay.doctor.finding import Finding, Subject
from relay.doctor.reaching import Place, approach
from relay.domain.canary import Submission
from relay.watch.submission import NotTaken, greet

NAME: Final = "canary.smtp_host"
LIMIT: Final = 6.0  # seconds from the greeting to the offer of a login
REMEDIES: Final = (
    ("certificate", "set canary.smtp_ca_file to its CA, or canary.smtp_host to a name that the certificate has"),
    ("offers-no-starttls", 'set canary.smtp_tls = "tls" and the port for it, mostly 465'),
    (
        "offers-no-login",
        "take the port for the mails of users, mostly 587; or remove canary.smtp_user",
    ),
    ("", "check that canary.smtp_port and canary.smtp_tls fit together, and see the log of the mail server"),
)
"""What to do, by the beginning of why a server would take no mail; the first that fits."""


async def look_at_submission(to: Submission) -> Sequence[Finding]:
    """Return the findings about the server that takes the canary's mails; no password and no mail is sent."""
    way, _ = await approach(Place(NAME, to.host, to.port))
    if not way.open:
        return way.findings
    subject, clock = Subject("SMTP", NAME), asyncio.get_running_loop().time
    began = clock()
    try:
        await greet(to, LIMIT)
    except NotTaken as error:
        remedy = next(remedy for beginning, remedy in REMEDIES if str(error).startswith(beginning))
        return (*way.findings, subject.bad(str(error), remedy))
    tls = {"starttls": "STARTTLS, certificate trusted", "tls": "TLS, certificate trusted", "none": "no TLS"}[to.tls]
    login = "offers a login" if to.user else "is asked for no login"
    return (*way.findings, subject.good(f"{tls}; {login}", clock() - began))
