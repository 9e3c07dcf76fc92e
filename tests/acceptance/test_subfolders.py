"""Sub-folders on request, from the API to the push: only registrations that ask get their pushes, while they ask."""

from collections.abc import Mapping
from typing import Any

import pytest

from eas_watcher.names import CollectionClass
from tests.site import ANN, Site, identity_of
from tests.waiting import SOON, until


async def patch(site: Site, registration: dict[str, Any], change: dict[str, Any]) -> Mapping[str, Any]:
    return (await site.client.patch(identity_of(registration), wishes=change)).answer


@pytest.mark.slow
async def test_only_whoever_asks_hears_of_mail_in_subfolders(site: Site) -> None:
    eas, apns, fcm = site.sandbox.eas, site.sandbox.apns, site.sandbox.fcm
    async with site.relay():
        status, iphone = await site.register(subfolders=["email"])
        assert (status, iphone["subfolders"]) == (201, ["email"])
        status, android = await site.register_android()
        assert (status, android["subfolders"]) == (201, [])
        await site.held()
        inbox = eas.mailbox(ANN).default_folder(CollectionClass.EMAIL)
        pings = eas.records.requests["Ping"]
        folder = eas.add_folder(ANN, "Canary", parent=inbox)
        await until(lambda: eas.held and eas.records.requests["Ping"] > pings)

        site.deliver(folder=folder)
        (push,) = await apns.wait(1, SOON)
        assert b'"class": "email", "count": 1' in push.body
        assert b"Canary" not in push.body
        site.deliver()
        await fcm.wait(1, SOON)
        await apns.wait(2, SOON)
        assert len(fcm.received) == 1

        pings = eas.records.requests["Ping"]
        assert (await patch(site, iphone, {"subfolders": []}))["subfolders"] == []
        await until(lambda: eas.held and eas.records.requests["Ping"] > pings)
        (device,) = eas.devices(ANN)
        assert device.ping is not None
        assert [id_ for id_, _ in device.ping.folders] == [inbox]
        pings = eas.records.requests["Ping"]
        assert (await patch(site, android, {"subfolders": ["email", "notes"]}))["subfolders"] == ["email", "notes"]
        await until(lambda: eas.held and eas.records.requests["Ping"] > pings)
        site.deliver(folder=folder)
        await fcm.wait(2, SOON)

    assert len(apns.received) == 2
    assert not eas.complaints
    assert eas.records.overlaps == {}
