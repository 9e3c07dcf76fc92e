"""Which devices may register, over TLS with certificates of the company's CA."""

import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from aiohttp import ClientConnectionError, ClientSession, TCPConnector
from cryptography.x509.oid import ExtendedKeyUsageOID

from eas_watcher.transport.tls import client_context
from relay.api.app import LARGEST, RegistrationApi
from relay.http.listeners import open_listener, server_tls
from relay.registration.enrolment import Enrolment, EnrolmentMode
from tests.fakes.chains import Authority, shake
from tests.fakes.relay_api import ApiWorld, judging
from tests.integration.test_api import MANY, Api, serving, wish

KEY, MTLS = frozenset({EnrolmentMode.KEY}), frozenset({EnrolmentMode.MTLS})
SECRET, NEXT = "canary-enrolment-key-0123456789", "canary-enrolment-key-abcdefghij"
REFUSED = (403, "enrolment-refused")
BOTH_LOOPS = pytest.mark.both_loops


class Site:
    """A company with its CA, and a stranger with another."""

    def __init__(self, folder: Path) -> None:
        self.company, self.stranger = trustme.CA(), trustme.CA()
        self.ca_file = folder / "ca.pem"
        self.company.cert_pem.write_to_path(self.ca_file)
        served = self.company.issue_cert("127.0.0.1")
        self.certificate, self.key = folder / "api.pem", folder / "api.key"
        served.private_key_pem.write_to_path(self.key)
        for pem in served.cert_chain_pems:
            pem.write_to_path(self.certificate, append=True)

    @asynccontextmanager
    async def api(
        self, user: str | None, *, enrolment: Enrolment | None = None, stranger: bool = False
    ) -> AsyncIterator[Api]:
        """Serve the API with TLS to a device that has a certificate of this user, or none."""
        world = ApiWorld(verdict_wait=0.3, enrolment=enrolment or Enrolment([MTLS]))
        app = RegistrationApi(world.service, world.receipts, MANY, world.tokens, world.capabilities).app
        tls = server_tls(self.certificate, self.key, self.ca_file)
        trust = ssl.create_default_context(cafile=str(self.ca_file))
        if user is not None:
            (self.stranger if stranger else self.company).issue_cert(user).configure_cert(trust)
        async with (
            open_listener(app, "127.0.0.1", 0, tls, largest=LARGEST) as port,
            ClientSession(f"https://127.0.0.1:{port}", connector=TCPConnector(ssl=trust)) as client,
        ):
            yield Api(world, client)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@BOTH_LOOPS
async def test_a_certificate_registers_the_mailbox_of_its_user_and_no_other(site: Site) -> None:
    async with site.api("ann@example.com") as api:
        made = await api.register()
        assert made["mailbox"]["user"] == "ann@example.com"
        await api.problem(REFUSED, "POST", "/v1/registrations", wish(mailbox="ben@example.com"))
        login = wish()["credential"] | {"user": "ben@example.com"}
        await api.problem(REFUSED, "POST", "/v1/registrations", wish(credential=login))
        assert len(api.world.store.registrations) == 1


async def test_a_device_without_a_certificate_registers_nothing_but_keeps_what_it_has(site: Site) -> None:
    async with site.api("ann@example.com") as api:
        made = await api.register()
        enrolled = api.world
    app = RegistrationApi(enrolled.service, enrolled.receipts, MANY, enrolled.tokens, enrolled.capabilities).app
    tls = server_tls(site.certificate, site.key, site.ca_file)
    trust = ssl.create_default_context(cafile=str(site.ca_file))
    async with (
        open_listener(app, "127.0.0.1", 0, tls, largest=LARGEST) as port,
        ClientSession(f"https://127.0.0.1:{port}") as client,
    ):
        api = Api(enrolled, client)
        await api.problem(REFUSED, "POST", "/v1/registrations", wish(), ssl=trust)
        response, _ = await api.call("GET", f"/v1/registrations/{made['id']}", secret=made["secret"], ssl=trust)
        assert response.status == 200


async def test_a_certificate_of_another_ca_ends_the_handshake(site: Site) -> None:
    async with site.api("ann@example.com", stranger=True) as api:
        with pytest.raises(ClientConnectionError):
            await api.call("POST", "/v1/registrations", wish())
        assert not api.world.store.registrations


@pytest.mark.parametrize("flaw", [{"critical": False}, {"subject_id": False}, {"key_usage": False}], ids=str)
def test_a_ca_of_devices_of_an_older_form_is_taken_alike_with_every_python(
    site: Site, tmp_path: Path, flaw: dict[str, bool]
) -> None:
    devices = Authority("Devices", **flaw)  # type: ignore[arg-type]  # one property each
    (tmp_path / "devices.pem").write_bytes(devices.pem)
    (tmp_path / "device.pem").write_bytes(devices.server(["ann"], purpose=ExtendedKeyUsageOID.CLIENT_AUTH))
    serving = server_tls(site.certificate, site.key, tmp_path / "devices.pem")
    device = client_context(site.ca_file)
    device.load_cert_chain(tmp_path / "device.pem")

    assert shake(serving, device, "127.0.0.1") == "TLSv1.3"
    # Python 3.13 would add VERIFY_X509_STRICT, which refuses this CA.
    assert serving.verify_flags == ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN


async def test_a_key_is_demanded_before_the_body_is_read_and_another_may_follow_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    world = ApiWorld(verdict_wait=0.3, enrolment=Enrolment([KEY], [SECRET, NEXT]))
    async with serving(world=world) as api:
        for headers in ({}, {"Enrolment-Key": "canary-guess"}, {"Enrolment-Key": "\udcff"}):
            answer = await api.problem(REFUSED, "POST", "/v1/registrations", {"password": "canary"}, headers=headers)
            assert "Enrolment-Key" in answer["detail"]
        assert not world.judged
        assert not world.store.registrations
        for key in (SECRET, NEXT):
            async with judging(world):
                response, made = await api.call("POST", "/v1/registrations", wish(), headers={"Enrolment-Key": key})
            assert response.status == 201
        response, _ = await api.call("GET", f"/v1/registrations/{made['id']}", secret=made["secret"])
        assert response.status == 200
        told = " ".join(answer for answer in api.answers if made["secret"] not in answer)

    assert "canary" not in told + caplog.text
    lines = [record for record in caplog.records if record.getMessage() == "enrolment refused"]
    assert [vars(line)["key_shown"] for line in lines] == [False, True, True]


async def test_who_makes_id_and_secret_needs_a_key_too() -> None:
    world = ApiWorld(verdict_wait=0.3, enrolment=Enrolment([KEY], [SECRET]))
    async with serving(world=world) as api, judging(world):
        path, own = "/v1/registrations/Vq0zM3yX8sT1bN6kR4wJcLhP", "2r5uGvTjJ1rN4QkO0mWc7yYxVb8eLhZq"
        await api.problem(REFUSED, "PUT", path, wish(), own)
        assert not world.store.registrations

        response, _ = await api.call("PUT", path, wish(), own, headers={"Enrolment-Key": SECRET})
        assert response.status == 201


async def test_both_may_be_demanded_together(site: Site) -> None:
    async with site.api("ann@example.com", enrolment=Enrolment([KEY | MTLS], [SECRET])) as api:
        await api.problem(REFUSED, "POST", "/v1/registrations", wish())
        async with judging(api.world):
            response, _ = await api.call("POST", "/v1/registrations", wish(), headers={"Enrolment-Key": SECRET})
        assert response.status == 201


async def test_the_capabilities_name_the_ways_to_enrol(site: Site) -> None:
    async with site.api(None, enrolment=Enrolment([KEY, KEY | MTLS], [SECRET])) as api:
        _, answer = await api.call("GET", "/v1/capabilities")

    assert answer["enrolment"] == {"alternatives": [["key"], ["key", "mtls"]], "invitation": False}
