// The sign-in at the company's own page by authorization code with PKCE [RFC 7636]: the way there, and what comes back.
const { relayStore: store } = self;
const NAME = "authorization"; // of what is kept from the way there until the return
const PATIENCE = 600000; // milliseconds between both; a code is good for minutes

const base64url = (bytes) => btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");

// Returns that many random bytes as text.
export const random = (size) => base64url(crypto.getRandomValues(new Uint8Array(size)));

// Returns what came back, and takes it out of the address and the history; null on any other page.
export function takeReturn(path, home) {
  if (location.pathname !== path) return null;
  const said = new URLSearchParams(location.search);
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) said.set(name, value);
  history.replaceState(null, "", home);
  return said;
}

// Leaves for the sign-in; `oauth` is what the API says of the server, `hint` whose sign-in it is, and `kept` comes back.
export async function leave(oauth, redirect, hint, kept) {
  const url = new URL(oauth.authorization_endpoint);
  if (url.protocol !== "https:") throw new TypeError("no https:");
  const [verifier, state] = [random(32), random(18)];
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier));
  const asked = {
    response_type: "code",
    response_mode: "fragment", // what is behind # is sent to no server and stands in no log
    client_id: oauth.client_id,
    redirect_uri: redirect,
    state,
    code_challenge: base64url(new Uint8Array(digest)),
    code_challenge_method: "S256",
    login_hint: hint,
  };
  if (oauth.scope) asked.scope = oauth.scope;
  for (const [name, value] of Object.entries(asked)) url.searchParams.set(name, value);
  await store.set(NAME, { kept, verifier, state, redirect, at: Date.now() });
  location.assign(url.href);
}

// Returns {code, kept, credential} for what came back; `code` names the words for what went wrong, or is empty.
export async function arrive(said) {
  const begun = await pending();
  await store.remove(NAME);
  if (!begun || said.get("state") !== begun.state) return { code: "sign-in-lost" };
  const { kept, verifier, redirect } = begun;
  if (said.get("error") === "access_denied") return { code: "sign-in-denied", kept };
  if (said.get("error") || !said.get("code")) return { code: "sign-in-failed", kept };
  const credential = { kind: "oauth", code: said.get("code"), code_verifier: verifier, redirect_uri: redirect };
  return { code: "", kept, credential };
}

// Returns what was kept on the way there, and removes what is too old for a return.
export async function pending() {
  const begun = await store.get(NAME);
  if (!begun || Date.now() - begun.at < PATIENCE) return begun;
  await store.remove(NAME);
  return undefined;
}
