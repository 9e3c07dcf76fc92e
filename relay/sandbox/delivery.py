"""The delivery of a mail in a sandbox that runs in another process, for `relay deliver`."""

from http import HTTPStatus

import aiohttp


class NotDelivered(Exception):
    """A mail was not delivered; the text says why."""


async def deliver_mail(control: str, *, user: str, subject: str, sender: str, body: str) -> None:
    """Deliver a mail through the control listener at the URL `control`; raises NotDelivered."""
    mail = {"user": user, "subject": subject, "sender": sender, "body": body}
    try:
        async with aiohttp.ClientSession() as session, session.post(f"{control}/eas/mail", json=mail) as answer:
            if answer.status != HTTPStatus.CREATED:
                problem = await answer.json(content_type=None)
                raise NotDelivered(f"the sandbox refused the mail: {problem.get('detail', answer.status)}")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise NotDelivered(f"no sandbox answers at {control}: start `relay sandbox`, or name its --control") from error
