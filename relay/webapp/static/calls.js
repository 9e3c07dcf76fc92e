"use strict";
// Requests to the registration API, for pages and service worker; the same that any other app sends.
(() => {
  const PATIENCE = 30000; // milliseconds for the answer to a question
  const VERDICT = 70000; // to a change: one with a credential waits up to 60 s for the mail server (api.verdict_wait)

  // Returns {status, code, body}: `code` is that of the problem, "unreachable" without an answer, "" if all is well.
  // `patience` is in milliseconds.
  async function call(method, path, { secret = "", body, headers = {}, patience } = {}) {
    const sent = { ...headers };
    if (secret) sent.Authorization = `Bearer ${secret}`;
    if (body !== undefined) sent["Content-Type"] = "application/json";
    let answer;
    try {
      answer = await fetch(path, {
        method,
        headers: sent,
        body: body === undefined ? undefined : JSON.stringify(body),
        cache: "no-store",
        credentials: "same-origin", // client certificates of devices; there are no cookies
        redirect: "error",
        referrerPolicy: "no-referrer",
        signal: AbortSignal.timeout(patience ?? (method === "GET" ? PATIENCE : VERDICT)),
      });
    } catch {
      return { status: 0, code: "unreachable", body: {} };
    }
    const read = await answer.json().catch(() => ({}));
    // A proxy's error page has no code.
    return { status: answer.status, code: answer.ok ? "" : read.code || "unreachable", body: read };
  }

  const of = (registration) => `/v1/registrations/${registration.id}`;

  // Subscribes with the relay's key, and again if the subscription that there is was made for another one. Returns
  // {subscription, key, code}; raises what the browser raises.
  async function subscribe(manager) {
    const asked = await call("GET", "/v1/webpush");
    if (asked.code) return { code: asked.code };
    const key = asked.body.vapid_public_key;
    let subscription = await manager.getSubscription();
    if (subscription && !same(subscription, key)) {
      await subscription.unsubscribe();
      subscription = null;
    }
    subscription ??= await manager.subscribe({ userVisibleOnly: true, applicationServerKey: key });
    return { subscription, key, code: "" };
  }

  function same(subscription, key) {
    const made = subscription.options?.applicationServerKey;
    if (!made) return true; // a browser that does not say it: the relay's answer to a push will
    const text = btoa(String.fromCharCode(...new Uint8Array(made)));
    return text.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "") === key;
  }

  // Sends the present subscription to the relay if it is not the one that the relay has, or always with `force`.
  async function refresh(manager, { force = false } = {}) {
    const registration = await self.relayStore.get("registration");
    if (!registration) return "";
    const { subscription, code } = await subscribe(manager);
    if (code) return code;
    if (!force && subscription.endpoint === (await self.relayStore.get("endpoint"))) return "";
    const answer = await call("PATCH", of(registration), {
      secret: registration.secret,
      body: { device: subscription.toJSON() },
    });
    if (!answer.code) await self.relayStore.set("endpoint", subscription.endpoint);
    return answer.code;
  }

  self.relayCalls = { call, of, subscribe, refresh };
})();
