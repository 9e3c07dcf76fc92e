// The web app's page: shows the step that is due, and does what its buttons say.
import { arrive, leave, pending, random, takeReturn } from "./authorization.js";
import { clock, condition, due, minutes } from "./steps.js";

const { relayStore: store, relayCalls: calls } = self;
const { base, app, language, back } = document.body.dataset;
const WORKER = `${base}/sw.js`;
const LOOK = 3000; // milliseconds between two looks while something is under way
const LOOKS = 20; // of them at most
const AGAIN = 60000; // milliseconds between two looks while nothing is
const STARTS = 30000; // milliseconds until the service worker runs
const GONE = ["gone", "not-authorized"];
const SAME = {
  "not-authorized": "gone",
  "unsupported-device": "unknown-app",
  unavailable: "busy",
  internal: "busy",
  "too-slow": "busy",
  "too-many-requests": "wait",
  "too-many-registrations": "wait",
  "too-many-for-registration": "wait",
  "too-many-tests": "wait",
  "too-many-challenges": "wait",
  "other-mailbox": "invalid-request",
}; // codes of the API that have the same words

const policy = self.trustedTypes?.createPolicy("relay-web", {
  createScriptURL: (url) => {
    if (url === WORKER) return url;
    throw new TypeError("no script of the web app");
  },
});

const find = (selector) => document.querySelector(selector);
const all = (selector) => [...document.querySelectorAll(selector)];
let shown = "";
let described = ""; // the condition that the page showed last
let prompt = null;
let following = null;
let hurry = () => {};
let offered = null; // the mail server as the API describes it; undefined: the API knows none, null: it was not asked yet

addEventListener("beforeinstallprompt", (event) => {
  event.preventDefault();
  prompt = event;
  find('[data-act="install"]').hidden = false;
});

// --- facts

function system() {
  const apple = /iPhone|iPad|iPod/.test(navigator.userAgent) || (/Macintosh/.test(navigator.userAgent) && navigator.maxTouchPoints > 1);
  const phone = apple || /Android/.test(navigator.userAgent) || navigator.userAgentData?.mobile === true;
  const standalone = navigator.standalone === true || matchMedia("(display-mode: standalone)").matches;
  const supported = "serviceWorker" in navigator && "PushManager" in self && "Notification" in self;
  return { apple, phone, standalone, supported, permission: supported ? Notification.permission : "default" };
}

async function facts() {
  const [welcomed, skipped, registration] = await Promise.all(["welcomed", "skipped", "registration"].map(store.get));
  return { ...system(), welcomed, skipped, registered: Boolean(registration) };
}

// Returns the registration of the running service worker; undefined if the browser does not start it, e.g. because of the
// certificate. One whose installation fails never gets ready.
async function worker() {
  const script = policy ? policy.createScriptURL(WORKER) : WORKER;
  const running = navigator.serviceWorker.register(script, { scope: `${base}/` }).then(() => navigator.serviceWorker.ready);
  const late = new Promise((resolve) => setTimeout(resolve, STARTS));
  return Promise.race([running, late]).catch(() => undefined);
}

// --- showing

function show(step) {
  for (const section of all("main > section")) section.hidden = section.id !== step;
  if (step === shown) return;
  shown = step;
  const heading = find(`#${step} h1`);
  document.title = `${heading.textContent} – ${find(".title").textContent}`;
  heading.focus();
}

function notice(code = "") {
  const notices = all("[data-notice]");
  const name = SAME[code] ?? code;
  const known = notices.find((each) => each.dataset.notice === name) ?? (code && find('[data-notice="other"]'));
  for (const each of notices) each.hidden = each !== known;
  if (name === "unreachable") hideConditions(); // nobody knows whether they still hold
  if (known) known.scrollIntoView({ block: "nearest" });
}

function hideConditions() {
  for (const each of all("[data-condition]")) each.hidden = true;
}

function fill(name, text) {
  find(`[data-shows="${name}"]`).textContent = text;
}

function describe(registration, byPassword) {
  const found = condition(registration);
  const name = found === "refused" && !byPassword ? "sign-in-ended" : found;
  for (const each of all("[data-condition]")) each.hidden = each.dataset.condition !== name;
  fill("user", registration.mailbox.user);
  find("#known-user").value = registration.mailbox.user;
  const last = registration.last_push_at;
  find('[data-shows="last"]').hidden = !last;
  if (last) {
    fill("last-time", new Date(last).toLocaleString(language));
    find('[data-shows="last-time"]').dateTime = last;
  }
  const help = registration.remedy?.by === "administrator";
  find('[data-shows="remedy"]').hidden = !help;
  fill("remedy-text", help ? registration.remedy.text : "");
  find('[data-act="challenge"]').hidden = name !== "proving";
  find('[data-act="test"]').hidden = registration.state !== "active";
  find('[data-shows="password"]').hidden = !byPassword;
  find('[data-act="authorize-again"]').hidden = byPassword;
  if (name === "refused" && name !== described) find('[data-shows="password"]').open = true;
  described = name;
  if (isWishing()) return name;
  for (const each of all('[name="class"]')) each.checked = registration.classes.includes(each.value);
  return name;
}

// Returns true while somebody fills in the form about classes and quiet hours, which nothing may change then.
const isWishing = () => find('[data-form="wishes"]').contains(document.activeElement);

// --- the registration

async function ask(method, rest, body) {
  const registration = await store.get("registration");
  if (!registration) return { status: 0, code: "gone", body: {} };
  const answer = await calls.call(method, `${calls.of(registration)}${rest}`, { secret: registration.secret, body });
  if (GONE.includes(answer.code) || answer.code === "wiped") await forget();
  return answer;
}

// Removes everything from this browser but that the welcome page was seen, and in which language.
async function forget() {
  const chosen = await store.get("language");
  const ready = await navigator.serviceWorker.getRegistration(`${base}/`);
  const subscription = await ready?.pushManager.getSubscription();
  await subscription?.unsubscribe();
  await store.clear();
  await store.set("welcomed", true);
  if (chosen) await store.set("language", chosen);
  for (const form of all("form")) form.reset();
}

async function look() {
  const answer = await ask("GET", "");
  if (answer.code) {
    notice(answer.code);
    if (GONE.includes(answer.code) || answer.code === "wiped") show(due(await facts()));
    else hideConditions();
    return "";
  }
  if (!find('[data-notice="unreachable"]').hidden) notice();
  if (offered === null) await offer({ server: answer.body.mailbox.server });
  return describe(answer.body, signsInByPassword((await store.get("registration"))?.login));
}

// Returns true if one signs in by a password: as before, unless the mail server takes that no more.
function signsInByPassword(login) {
  const password = offered?.credentials.includes("basic") ?? false;
  return login === "oauth" ? password && !authorizes() : password || !authorizes();
}

// Looks again until nothing is under way any more; returns the name of the words that hold then.
function follow() {
  following ??= settle().finally(() => {
    following = null;
  });
  return following;
}

async function settle() {
  let name = "";
  let renewed = false;
  for (let count = 0; count < LOOKS; count += 1) {
    name = await look();
    if (!["verifying", "proving", "token-gone"].includes(name)) return name;
    if (name === "token-gone" && !renewed) {
      renewed = true;
      await refresh({ force: true });
    }
    await new Promise((resolve) => {
      hurry = resolve;
      setTimeout(resolve, LOOK);
    });
  }
  return name;
}

// Sends the subscription to the relay if it has another one, or always with `force`; shows what is in the way.
async function refresh({ force = false } = {}) {
  const running = await worker();
  if (!running) return notice("no-worker");
  try {
    const code = await calls.refresh(running.pushManager, { force });
    if (code) notice(code);
  } catch {
    notice("no-subscription");
  }
}

// Renews what the browser or the relay has lost, and shows how things stand.
async function status() {
  show("status");
  const quiet = await store.get("quiet");
  if (!isWishing()) {
    find("#from").value = quiet ? clock(quiet.from) : "";
    find("#to").value = quiet ? clock(quiet.to) : "";
  }
  if (!(await look())) return;
  await refresh();
  if (await store.get("registration")) await follow();
}

async function next() {
  const step = due(await facts());
  show(step);
  if (step === "install") {
    const { apple } = system();
    for (const each of all("[data-system]")) each.hidden = (each.dataset.system === "apple") !== apple;
  }
  if (step === "sign-in") notice(await offer());
  if (step === "status") await status();
}

// Shows how one signs in at a server, known by a mailbox or its name, and the fields that this relay wants besides.
async function offer({ mailbox = "", server = "" } = {}) {
  const query = new URLSearchParams(Object.entries({ mailbox, server }).filter(([, value]) => value));
  const { code, body } = await calls.call("GET", `/v1/capabilities?${query}`);
  if (code) return code;
  const { alternatives, invitation } = body.enrolment;
  find('[data-needs="invitation"]').hidden = !invitation;
  find('[data-needs="key"]').hidden = !alternatives.every((modes) => modes.includes("key"));
  offered = body.server ?? undefined;
  const ways = { password: !offered || offered.credentials.includes("basic"), authorize: authorizes() };
  for (const each of all("[data-way]")) each.hidden = !ways[each.dataset.way];
  find("#password").required = ways.password;
  if (!offered) return mailbox || server ? "unknown-server" : "";
  return ways.password || ways.authorize ? "" : "unsupported-credential";
}

const authorizes = () => Boolean(offered?.oauth?.authorization_endpoint);
const redirect = () => new URL(back, location.href).href;

// Returns the fields of the sign-in but for the password.
function fields() {
  const { password, ...given } = Object.fromEntries(new FormData(find('[data-form="sign-in"]')));
  for (const name of Object.keys(given)) given[name] = given[name].trim();
  return given;
}

async function signIn(form) {
  const password = new FormData(form).get("password");
  const given = fields();
  const unable = await offer({ mailbox: given.mailbox });
  if (unable) return unable;
  return find("#password").required ? enrol(given, { kind: "basic", password }) : authorize();
}

// Leaves for the company's own page; returns the code of what is in the way.
async function authorize() {
  const given = fields();
  if (!find("#mailbox").reportValidity()) return "";
  const unable = await offer({ mailbox: given.mailbox });
  if (unable) return unable;
  if (!authorizes()) return "unsupported-credential";
  await leave(offered.oauth, redirect(), given.user || given.mailbox, { given });
  return "";
}

async function authorizeAgain() {
  const seen = await ask("GET", "");
  if (seen.code) return seen.code;
  const { server, user } = seen.body.mailbox;
  const unable = await offer({ server });
  if (unable) return unable;
  if (!authorizes()) return "unsupported-credential";
  await leave(offered.oauth, redirect(), user, { renews: true });
  return "";
}

// Goes on where the way to the company's own page began.
async function arrived(said) {
  const { code, kept, credential } = await arrive(said);
  if (!code && kept.renews) return renew(credential);
  await next();
  if (kept?.given && shown === "sign-in") {
    for (const [name, value] of Object.entries(kept.given)) find(`[data-form="sign-in"] [name="${name}"]`).value = value;
    await offer(kept.given);
  }
  return code || enrol(kept.given, credential);
}

async function renew(credential) {
  show("status");
  const answer = await ask("PATCH", "", { credential });
  if (!answer.code) await signedInBy("oauth");
  await next();
  if (answer.code) return ofSignIn(answer.code);
  return answer.status === 202 ? "sign-in-waits" : "sign-in-taken";
}

// Returns the name of the words for a code when nobody typed a password.
const ofSignIn = (code) => (code === "credential-refused" ? "sign-in-refused" : code);

// Notes how a registration signs in from now on.
async function signedInBy(login) {
  await store.set("registration", { ...(await store.get("registration")), login });
}

async function enrol(given, shows) {
  if (await store.get("registration")) return next().then(() => ""); // another window was faster
  const running = await worker();
  if (!running) return "no-worker";
  let found;
  try {
    found = await calls.subscribe(running.pushManager);
  } catch {
    return "no-subscription";
  }
  if (found.code) return found.code === "no-such-resource" ? "unknown-app" : found.code;
  // Id and secret are kept before they are sent, as the confirmation may come before the answer. Without an answer they are
  // sent again: the relay then knows the request, and tries no password twice that was accepted or waits.
  const { mailbox } = given;
  const before = await store.get("unanswered");
  const { id, secret } = before?.mailbox === mailbox ? before : { id: random(18), secret: random(32) };
  const registration = { id, secret, login: shows.kind };
  await store.set("registration", registration);
  const credential = given.user ? { ...shows, user: given.user } : shows;
  const body = { mailbox, credential, device: { platform: "webpush", app, ...found.subscription.toJSON() }, locale: language };
  if (given.invitation) body.invitation = given.invitation;
  const headers = given.key ? { "Enrolment-Key": given.key } : {};
  const answer = await calls.call("PUT", calls.of(registration), { secret: registration.secret, body, headers });
  const lost = answer.status === 0 || answer.status >= 500;
  // The relay may have it nevertheless.
  const there = lost ? await calls.call("GET", calls.of(registration), { secret }) : answer;
  if (there.code) {
    await store.remove("registration");
    if (lost) await store.set("unanswered", { mailbox, ...registration });
    else await store.remove("unanswered");
    return shows.kind === "oauth" ? ofSignIn(answer.code) : answer.code;
  }
  await store.remove("unanswered");
  await store.set("endpoint", found.subscription.endpoint);
  find('[data-form="sign-in"]').reset();
  show("status");
  if ((await follow()) === "well") await test();
  return "";
}

async function test() {
  const asked = await ask("POST", "/test-push");
  if (asked.code) return notice(asked.code);
  notice("test-queued");
  for (let count = 0; count < LOOKS; count += 1) {
    await new Promise((resolve) => setTimeout(resolve, LOOK));
    const { code, body } = await ask("GET", `/test-pushes/${asked.body.test.id}`);
    if (code) return notice(code);
    if (body.state !== "queued") return notice(`test-${body.state}`);
  }
  return notice("test-queued");
}

async function changePassword(form) {
  const password = new FormData(form).get("password");
  const answer = await ask("PATCH", "", { credential: { kind: "basic", password } });
  form.reset();
  if (answer.code) return answer.code;
  await signedInBy("basic");
  find('[data-shows="password"]').open = false;
  notice(answer.status === 202 ? "password-waits" : "password-taken");
  await follow();
  return null;
}

async function wish(form) {
  const given = new FormData(form);
  const classes = given.getAll("class");
  const [from, to] = [minutes(given.get("from")), minutes(given.get("to"))];
  if (!classes.length) return "no-class";
  if ((from === null) !== (to === null)) return "half-quiet";
  const answer = await ask("PATCH", "", { classes });
  if (answer.code) return answer.code;
  if (from === null || from === to) await store.remove("quiet");
  else await store.set("quiet", { from, to });
  return "saved";
}

async function stop() {
  const answer = await ask("DELETE", "");
  if (answer.code && !GONE.includes(answer.code) && answer.code !== "wiped") return answer.code;
  await forget();
  await next();
  return "stopped";
}

const ACTS = {
  begin: async () => {
    await store.set("welcomed", true);
    await next();
  },
  install: async () => {
    await prompt?.prompt();
    const choice = await prompt?.userChoice;
    prompt = null;
    find('[data-act="install"]').hidden = true;
    if (choice?.outcome === "accepted") await ACTS.skip();
  },
  skip: async () => {
    await store.set("skipped", true);
    await next();
  },
  allow: async () => {
    await Notification.requestPermission();
    await next();
  },
  again: () => next(),
  authorize: async () => notice(await authorize()),
  "authorize-again": async () => notice(await authorizeAgain()),
  test,
  challenge: async () => {
    const answer = await ask("POST", "/challenge");
    notice(answer.code || "challenge-sent");
    if (!answer.code) await follow();
  },
  stop: async () => notice(await stop()),
};

const FORMS = { "sign-in": signIn, password: changePassword, wishes: wish };

// Runs something with its button out of use meanwhile.
async function during(button, work) {
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (error) {
    notice("broken");
    console.error(error.name); // its text may repeat what was typed
  } finally {
    button.disabled = false;
    button.removeAttribute("aria-busy");
    // A button out of use loses the focus, and with it who uses a keyboard loses the place.
    if (document.activeElement === document.body) button.focus({ preventScroll: true });
  }
}

for (const button of all("[data-act]")) {
  button.addEventListener("click", () => {
    notice();
    return during(button, () => ACTS[button.dataset.act]());
  });
}
for (const form of all("[data-form]")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    notice();
    return during(form.querySelector('[type="submit"]'), async () => {
      const code = await FORMS[form.dataset.form](form);
      if (code !== null && code !== "") notice(code);
      for (const field of form.querySelectorAll('[type="password"]')) field.value = "";
    });
  });
}
find("#mailbox").addEventListener("change", () => {
  const { mailbox } = fields();
  if (mailbox) offer({ mailbox }).catch(() => {}); // what is wrong is said when the form is sent
});
navigator.serviceWorker?.addEventListener("message", (event) => {
  if (shown !== "status" || !["challenge", "attention", "opened"].includes(event.data?.kind)) return;
  hurry();
  follow();
});
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible" && ["install", "denied", "status"].includes(shown)) next();
});
setInterval(() => {
  if (document.visibilityState === "visible" && shown === "status") follow();
}, AGAIN);

// Shows the page in the language that a person chose before; returns true if it is loaded anew for that.
async function translated() {
  const url = new URL(location.href);
  const asked = url.searchParams.get("lang");
  if (asked === language) await store.set("language", asked);
  const chosen = await store.get("language");
  if (asked || !chosen || chosen === language) return false;
  url.searchParams.set("lang", chosen);
  location.replace(url.href);
  return true;
}

async function start() {
  if (await translated()) return;
  const returned = takeReturn(back, `${base}/`);
  await pending();
  if (!returned) await next();
  else {
    await during(find('[data-act="authorize"]'), async () => {
      const code = await arrived(returned);
      if (code) notice(code);
    });
  }
}

try {
  await start();
} catch {
  // IndexedDB is closed to private windows of some browsers.
  show("unsupported");
}
