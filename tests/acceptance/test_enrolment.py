"""A relay that registers managed devices only, from its settings to its log."""

import ssl
from pathlib import Path

import aiohttp
import pytest
import trustme

from relay.sandbox.installation import APP
from tests.site import ANN, IPHONE, PASSWORD, Site, open_site

KEY = "canary-enrolment-key-0123456789abcdef"
WISH = {
    "mailbox": ANN,
    "credential": {"kind": "basic", "password": PASSWORD},
    "device": {"platform": "apns", "token": IPHONE, "app": APP},
}


def device(site: Site, ca: trustme.CA | None) -> aiohttp.ClientSession:
    """Return the connections of a phone, with a certificate of the user if there is a CA."""
    trust = ssl.create_default_context(cafile=site.sandbox.folder / "ca.pem")
    if ca is not None:
        ca.issue_cert(ANN).configure_cert(trust)
    return aiohttp.ClientSession(site.sandbox.api_url, connector=aiohttp.TCPConnector(ssl=trust))


@pytest.mark.slow
async def test_only_a_managed_device_of_the_user_registers(tmp_path: Path) -> None:
    ca = trustme.CA()
    (tmp_path / "devices.pem").write_bytes(ca.cert_pem.bytes())
    (tmp_path / "enrolment.keys").write_text(f"{KEY}\n")
    (tmp_path / "enrolment.keys").chmod(0o600)
    environ = {
        "RELAY__API__ENROLMENT": "key+mtls",
        "RELAY__API__ENROLMENT_KEY_FILES": str(tmp_path / "enrolment.keys"),
        "RELAY__API__CLIENT_CA_FILE": str(tmp_path / "devices.pem"),
    }
    async with open_site(tmp_path / "sandbox", environ) as site:
        site.sandbox.eas.add_mailbox(ANN, PASSWORD)
        async with site.relay() as process, device(site, None) as stranger, device(site, ca) as phone:
            async with stranger.get("/v1/capabilities", params={"mailbox": ANN}) as response:
                able = await response.json()
            assert able["enrolment"]["alternatives"] == [["key", "mtls"]]
            assert able["server"]["credentials"] == ["basic"]
            assert APP in able["platforms"]["apns"]["apps"]

            for client, headers in (
                (stranger, {"Enrolment-Key": KEY}),
                (phone, {}),
                (phone, {"Enrolment-Key": "guess"}),
            ):
                async with client.post("/v1/registrations", json=WISH, headers=headers) as response:
                    assert (response.status, (await response.json())["code"]) == (403, "enrolment-refused")
            assert not site.sandbox.eas.records.requests

            async with phone.post("/v1/registrations", json=WISH, headers={"Enrolment-Key": KEY}) as response:
                made = await response.json()
            assert (response.status, made["state"]) == (201, "active")

            # What is registered needs its secret only.
            path, secret = f"/v1/registrations/{made['id']}", {"Authorization": f"Bearer {made['secret']}"}
            async with stranger.get(path, headers=secret) as response:
                assert response.status == 200
        assert "canary" not in process.log.read_text()
