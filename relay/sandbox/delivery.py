"""Own the delivery of a mail to a sandbox that runs in another process."""

from http import HTTPStatus

import aiohttp


class NotDelivered(Exception):
    """Tell why a mail was not delivered."""


async def deliver_mail(control: str, *, user: str, subject: str, sender: str, body: str) -> None:
    """Ask the control listener at a URL to deliver a mail; raises NotDelivered."""
    mail = {"user": user, "subject": subject, "sender": sender, "body": body}
    try:
        async with aiohttp.ClientSession() as session, session.post(f"{control}/eas/mail", json=mail) as answer:
            if answer.status != HTTPStatus.CREATED:
                problem = await answer.json(content_type=None)
                raise NotDelivered(f"the sandbox refused the mail: {problem.get('detail', answer.status)}")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise NotDelivered(f"no sandbox answers at {control}: start `relay sandbox`, or name its --control") from error
