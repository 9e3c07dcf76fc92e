"use strict";
// The service worker of the web app: shows pushes, answers challenges, renews the subscription, keeps files with hashes.
const BASE = "{{ base }}/";
const OWN = "relay-web-"; // how the names of its caches begin; other applications of the origin may have some, too
const CACHE = `${OWN}{{ version }}`;
const OFFLINE = `${BASE}offline`; // of this version of the files, since each has a cache of its own
const FILES = [
{% for name in files %}
  "{{ asset(name) }}",
{% endfor %}
];
const SCRIPTS = ["{{ asset('store.js') }}", "{{ asset('calls.js') }}"];
const KEPT = 50; // receipts that wait for the next push
const OLDEST = 86400; // seconds after which a receipt is of no use
// Milliseconds for all that a push lets the worker do. An iPhone waits for it before it shows the notification; after 10 s it
// shows nothing and gets the next pushes late [reported of iOS 18.4]. Outside the company the relay is away, often in silence.
const PROOF = 5000; // for a challenge, on whose answer everything depends
const RECEIPT = 2000; // for any other push
const MEMORY = 1000; // of them at most until the browser has said what it keeps, or shown a notification
const PAUSES = [0, 1000, 2000]; // milliseconds before each try of a proof

const trusted = self.trustedTypes?.createPolicy("relay-web", {
  createScriptURL: (url) => {
    if (SCRIPTS.includes(url)) return url;
    throw new TypeError("no script of the web app");
  },
});
importScripts(...SCRIPTS.map((url) => (trusted ? trusted.createScriptURL(url) : url)));

self.addEventListener("install", (event) => {
  event.waitUntil(
    caches
      .open(CACHE)
      .then((cache) => cache.addAll([...FILES, OFFLINE]))
      .then(() => self.skipWaiting()),
  );
});

self.addEventListener("activate", (event) => {
  event.waitUntil(
    caches
      .keys()
      .then((names) => names.filter((name) => name.startsWith(OWN) && name !== CACHE))
      .then((old) => Promise.all(old.map((name) => caches.delete(name))))
      .then(() => self.clients.claim()),
  );
});

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== "GET" || url.origin !== self.location.origin) return;
  if (FILES.includes(url.pathname)) {
    event.respondWith(caches.match(url.pathname).then((found) => found ?? fetch(event.request)));
  } else if (event.request.mode === "navigate" && url.pathname.startsWith(BASE)) {
    event.respondWith(visit(event.request));
  }
});

async function visit(request) {
  try {
    const answer = await fetch(request);
    if (answer.status < 502) return answer; // else a proxy says that the relay is away
  } catch {
    // there is no network, or none that leads to the relay
  }
  return (await caches.match(OFFLINE)) ?? Response.error();
}

self.addEventListener("push", (event) => {
  event.waitUntil(take(read(event)));
});

// Returns {title, options, data} of a push: what the browser has read of it, or what its text says.
function read(event) {
  let said = {};
  try {
    said = event.data?.json() ?? {};
  } catch {
    said = {}; // no push of the relay: something must be shown all the same
  }
  const told = said.notification ?? event.notification ?? {};
  const data = told.data ?? (said.v ? said : {});
  return {
    title: told.title || "New mail",
    options: {
      body: told.body || "",
      lang: told.lang || "",
      tag: told.tag || data.class || data.kind || "mail",
      silent: told.silent === true,
      icon: "{{ asset('icon-192.png') }}",
      badge: "{{ asset('badge-96.png') }}",
      // WebKit takes no other notification in place of a declarative one without an address [ServiceWorkerRegistration.cpp].
      navigate: new URL(told.navigate || BASE, self.location.href).href,
      data: { navigate: told.navigate || BASE },
    },
    data,
    declared: Boolean(event.notification), // the browser shows it by itself if this worker cannot
  };
}

async function take({ title, options, data, declared }) {
  const end = performance.now() + (data.kind === "challenge" ? PROOF : RECEIPT);
  const [registration, quiet] = (await within(MEMORY, Promise.all([known(), isQuiet()]).catch(() => []))) ?? [];
  if (quiet) options.silent = true;
  if (options.silent !== true) options.renotify = true;
  const shown = within(MEMORY, self.registration.showNotification(title, options));
  await (declared ? shown.catch(() => {}) : shown);
  if (!registration || data.registration !== registration.id) return;
  const work = [];
  if (data.kind === "challenge") work.push(prove(registration, data.nonce, end));
  if (data.id) work.push(acknowledge(registration, data.id, end));
  await Promise.all(work);
  for (const page of await self.clients.matchAll({ type: "window" })) page.postMessage({ kind: data.kind ?? "" });
}

// Returns what a promise returns, or undefined after so many milliseconds.
function within(milliseconds, promise) {
  return Promise.race([promise, new Promise((resolve) => setTimeout(resolve, milliseconds))]);
}

// Returns {id, secret}; also of a sign-in whose answer was lost: the relay may have it.
async function known() {
  return (await self.relayStore.get("registration")) ?? self.relayStore.get("unanswered");
}

async function isQuiet() {
  const quiet = await self.relayStore.get("quiet").catch(() => undefined);
  if (!quiet) return false;
  const now = new Date();
  const minute = now.getHours() * 60 + now.getMinutes();
  const { from, to } = quiet;
  return from <= to ? from <= minute && minute < to : from <= minute || minute < to;
}

async function prove(registration, nonce, end) {
  for (const pause of PAUSES) {
    if (pause) await new Promise((resolve) => setTimeout(resolve, pause));
    const answer = await send(registration, "proof", { nonce }, end);
    if (answer.status && answer.status < 500 && answer.status !== 429) return;
  }
}

function send(registration, resource, body, end) {
  const patience = Math.max(1, end - performance.now());
  const path = `${self.relayCalls.of(registration)}/${resource}`;
  return self.relayCalls.call("POST", path, { secret: registration.secret, body, patience });
}

// Says that a push was shown, with those that could not be said before; a relay without receipts gives pushes no id.
async function acknowledge(registration, id, end) {
  const now = Date.now() / 1000;
  const waiting = ((await self.relayStore.get("receipts")) ?? []).filter(({ at }) => now - at < OLDEST);
  const all = [...waiting, { id, at: now }].slice(-KEPT);
  const receipts = all.map((each) => ({ id: each.id, seconds_ago: Math.max(0, now - each.at) }));
  const answer = await send(registration, "receipts", { receipts }, end);
  const again = answer.status === 0 || answer.status >= 500 || answer.status === 429;
  await self.relayStore.set("receipts", again ? all : []);
}

self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(openPage(event.notification.data?.navigate ?? BASE));
});

async function openPage(address) {
  const url = new URL(address, self.location.href);
  if (url.origin === self.location.origin && url.pathname.startsWith(BASE)) {
    const pages = await self.clients.matchAll({ type: "window" });
    const open = pages.find((page) => new URL(page.url).pathname.startsWith(BASE));
    open?.postMessage({ kind: "opened" });
    const focused = await open?.focus().catch(() => undefined); // not every browser lets a page come to the front
    if (focused) return focused;
  }
  return self.clients.openWindow(url.href);
}

self.addEventListener("pushsubscriptionchange", (event) => {
  event.waitUntil(self.relayCalls.refresh(self.registration.pushManager, { force: true }));
});
