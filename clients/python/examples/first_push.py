"""The first push: a phone without Google registers at a relay beside `relay sandbox`, and waits for a mail.

python first_push.py RELAY CA CONTROL PASSWORD, e.g. https://localhost:8447 sandbox/ca.pem http://localhost:8446 secret
"""

import asyncio
import json
import ssl
import sys

import aiohttp
from push_relay_client import App, Basic, MemoryStore, NewItems, RelayApi, WebPush, Wish

WAIT = "/push/webpush/received?within=60&at_least="


async def main(relay: str, ca: str, control: str, password: str) -> None:
    """Register, wait for the push about a mail, and log out."""
    trust = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=ca))
    async with aiohttp.ClientSession(control) as sandbox, aiohttp.ClientSession(relay, connector=trust) as session:
        # region first-push
        api = RelayApi(session)
        key = {"vapid_public_key": await api.vapid_public_key()}
        async with sandbox.post("/push/webpush/subscriptions", json=key) as response:
            subscription = await response.json()  # on a phone, the distributor gives it
        device = WebPush("com.example.mail", subscription["endpoint"], subscription["keys"])

        app = App(api, MemoryStore())
        told = await app.register(Wish("ann@example.com", Basic(password), device))
        print("registered:", told.step.name, told.detail)

        push, seen = None, 0
        while not isinstance(push, NewItems):  # deliver a mail: relay deliver ann@example.com
            seen += 1
            async with sandbox.get(f"{WAIT}{seen}") as response:
                arrived = (await response.json())["received"]
            push = await app.received(json.loads(arrived[seen - 1]["message"]))
            print("push:", push)

        print("logged out:", (await app.logout()).step.name)
        # endregion


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
