"""The web app as the api role serves it, and the pushes that it gets."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import ClientSession, web

from relay.http.listeners import open_listener
from relay.http.pages import FOREVER
from relay.push.payload import WEB_APP, WebAppPages
from relay.push.webpush.encryption import LENGTH, LONGER
from relay.webapp.serving import CACHED, WebApp, WebAppRoutes
from tests.integration.webpush_world import world

LOGO = b"\x89PNG\r\n\x1a\n"
SETTINGS = WebApp("/app", "Mail <b>", "/app/signed-in", "Ask & see", "https://mail.example.com/owa/", LOGO, "image/png")


@pytest.fixture
async def site() -> AsyncIterator[ClientSession]:
    app = web.Application()
    WebAppRoutes(SETTINGS).add_to(app)
    async with open_listener(app, "127.0.0.1", 0) as port, ClientSession(f"http://127.0.0.1:{port}") as session:
        yield session


async def test_the_page_speaks_the_language_of_the_browser_and_escapes_what_is_set(site: ClientSession) -> None:
    german = await site.get("/app/", headers={"Accept-Language": "de-AT,de;q=0.9"})
    french = await site.get("/app/?lang=fr", headers={"Accept-Language": "de"})
    text = await german.text()

    assert '<html lang="de">' in text
    assert '<html lang="fr">' in await french.text()
    assert "Mail &lt;b&gt;" in text
    assert "Ask &amp; see" in text
    assert 'href="https://mail.example.com/owa/"' in text
    assert german.headers["Vary"] == "Accept-Language"
    assert german.headers["Cache-Control"] == "no-store"
    policy = german.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    for rule in ("default-src 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"):
        assert rule in policy


async def test_the_path_without_a_slash_leads_to_the_page(site: ClientSession) -> None:
    answer = await site.get("/app", allow_redirects=False)

    assert (answer.status, answer.headers["Location"]) == (308, "/app/")


async def test_the_page_after_the_sign_in_gives_its_address_to_no_other_request(site: ClientSession) -> None:
    answer = await site.get("/app/signed-in?code=canary-code&state=canary-state")

    assert (answer.status, answer.headers["Referrer-Policy"]) == (200, "no-referrer")
    assert answer.headers["Cache-Control"] == "no-store"
    text = await answer.text()
    assert 'data-back="/app/signed-in"' in text
    assert "canary" not in text


async def test_the_manifest_names_icons_that_there_are(site: ClientSession) -> None:
    answer = await site.get("/app/manifest.webmanifest")
    manifest = await answer.json(content_type="application/manifest+json")

    assert (manifest["name"], manifest["scope"], manifest["start_url"]) == ("Mail <b>", "/app/", "/app/")
    assert manifest["display"] == "standalone"
    assert {each["sizes"] for each in manifest["icons"]} == {"192x192", "512x512"}
    assert "maskable" in {each["purpose"] for each in manifest["icons"]}
    for each in manifest["icons"]:
        icon = await site.get(each["src"])
        content = await icon.read()
        assert icon.headers["Cache-Control"] == FOREVER
        assert "x".join(str(int.from_bytes(content[at : at + 4])) for at in (16, 20)) == each["sizes"]


async def test_the_service_worker_keeps_files_that_there_are_and_is_asked_for_anew(site: ClientSession) -> None:
    answer = await site.get("/app/sw.js")
    text = await answer.text()

    assert answer.content_type == "text/javascript"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert "&" + "#" not in text, "escaped"
    kept = [line.strip(' ",') for line in text.split("const FILES = [")[1].split("];")[0].split("\n") if line.strip()]
    assert len(kept) == len(CACHED)
    for path in (*kept, "/app/offline"):
        assert (await site.get(path)).status == 200


async def test_another_title_makes_browsers_keep_the_page_for_a_relay_that_is_away_anew() -> None:
    async def worker(title: str) -> str:
        app = web.Application()
        WebAppRoutes(replace(SETTINGS, title=title)).add_to(app)
        async with open_listener(app, "127.0.0.1", 0) as port, ClientSession(f"http://127.0.0.1:{port}") as session:
            return await (await session.get("/app/sw.js")).text()

    assert await worker("Mail") == await worker("Mail")
    assert await worker("Mail") != await worker("Post")


async def test_the_logo_is_served_as_it_is_and_without_one_there_is_none(site: ClientSession) -> None:
    answer = await site.get("/app/logo")
    assert (await answer.read(), answer.content_type) == (LOGO, "image/png")
    rules = answer.headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "frame-ancestors 'none'", "sandbox"} <= set(rules), "an SVG may have scripts"

    app = web.Application()
    WebAppRoutes(WebApp("/app", "Mail", "/app/signed-in")).add_to(app)
    async with open_listener(app, "127.0.0.1", 0) as port, ClientSession(f"http://127.0.0.1:{port}") as plain:
        assert (await plain.get("/app/logo")).status == 404
        text = await (await plain.get("/app/")).text()
    assert "icon.svg" in text
    assert "<footer>" not in text


async def test_the_web_app_gets_texts_of_one_length_and_other_apps_get_none(tmp_path: Path) -> None:
    pages = WebAppPages("https://relay.example.com/app/", "https://mail.example.com/owa/")
    async with world(tmp_path, pages=pages) as made:
        await made.sender.send(made.phone(app=WEB_APP, locale="de"))
        await made.sender.send(made.phone(app="com.example.mail", locale="de"))
        first, second = (json.loads(message) for message in made.simulator.messages)
        overhead = 21 + 65 + 1 + 16  # header, key, delimiter, tag
        assert [len(push.body) - overhead for push in made.simulator.received] == [LONGER, LENGTH]
        assert made.simulator.complaints == []

    assert first["web_push"] == 8030
    assert first["notification"]["title"] == "Neue E-Mail"
    assert first["notification"]["navigate"] == pages.mail
    assert "notification" not in second
    assert first["notification"]["data"] == second


async def test_without_its_table_in_the_push_role_the_web_app_gets_data_alone(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        await made.sender.send(made.phone(app=WEB_APP))
        (message,) = made.simulator.messages

    assert json.loads(message)["kind"] == "new-items"
