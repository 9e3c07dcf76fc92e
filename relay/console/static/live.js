// Keeps the numbers of a page fresh: the page is asked for again, and its parts marked data-live take the place of the
// present ones. Nothing else of the page changes, and without JavaScript it is reloaded by hand.

const PERIOD = 10_000; // milliseconds between two looks
const LIVE = "X-Relay-Live"; // such a request prolongs no session

const OLD = "This page could not be refreshed, so its numbers are old. Load it again.";

const button = document.getElementById("live");
const stale = document.getElementById("stale"); // a screen reader reads out what is written there
let paused = false;

// A document made by XMLHttpRequest runs no scripts, and needs no HTML made of text in the page.
function fetchDocument(url) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("GET", url);
    request.responseType = "document";
    request.setRequestHeader(LIVE, "1");
    request.timeout = PERIOD;
    request.onload = () => resolve(request);
    request.onerror = request.ontimeout = () => reject(new Error("no answer"));
    request.send();
  });
}

// A person reads or uses this part now.
function isInUse(part) {
  const selection = document.getSelection();
  return (
    part.contains(document.activeElement) ||
    part.querySelector("details[open]") !== null ||
    (selection !== null && !selection.isCollapsed && selection.containsNode(part, true))
  );
}

// Puts a fresh part in the place of the present one; a table stays where a person scrolled it.
function renew(part, fresh) {
  const places = [...part.querySelectorAll(".scroll")].map((table) => table.scrollLeft);
  part.replaceWith(fresh);
  fresh.querySelectorAll(".scroll").forEach((table, number) => {
    table.scrollLeft = places[number] ?? 0;
  });
}

function tell(text) {
  if (stale.textContent !== text) {
    stale.textContent = text;
  }
}

async function refresh() {
  if (paused || document.hidden) {
    return;
  }
  const here = location.pathname + location.search;
  let answer;
  try {
    answer = await fetchDocument(here);
  } catch {
    tell(OLD);
    return;
  }
  if (new URL(answer.responseURL).pathname !== location.pathname) {
    location.reload(); // the session has ended
    return;
  }
  if (answer.status !== 200 || answer.response === null) {
    tell(OLD);
    return;
  }
  tell("");
  for (const part of document.querySelectorAll("[data-live], #made")) {
    const fresh = answer.response.getElementById(part.id);
    if (fresh !== null && !isInUse(part)) {
      renew(part, document.adoptNode(fresh));
    }
  }
}

if (button !== null && document.querySelector("[data-live]") !== null) {
  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.textContent = paused ? "Resume updates" : "Pause updates";
  });
  setInterval(refresh, PERIOD);
}
