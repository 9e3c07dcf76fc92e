// Which step of the web app is due: decided from facts alone.

// The steps in the order in which a person goes through them.
export const STEPS = ["welcome", "install", "allow", "sign-in", "status"];

// Returns a step of STEPS, or "unsupported" or "denied".
//
// facts: welcomed, skipped (the install step), supported (the browser has push), apple (iPhone or iPad), phone,
// standalone (opened from the Home Screen), permission ("default", "granted", "denied"), registered.
export function due(facts) {
  if (!facts.welcomed && !facts.registered) return "welcome";
  if (facts.apple && !facts.standalone) return "install"; // iOS allows notifications to web apps there alone
  if (!facts.supported) return "unsupported";
  if (facts.phone && !facts.standalone && !facts.skipped && !facts.registered) return "install";
  if (facts.permission === "denied") return "denied";
  if (facts.permission !== "granted") return "allow";
  return facts.registered ? "status" : "sign-in";
}

// Returns the name of the words about a registration as the API shows it.
export function condition(registration) {
  const { state, mailbox, credential } = registration;
  if (state === "verifying") return registration.remedy?.by === "user" ? "refused" : "verifying";
  if (state === "credential-refused") return "refused";
  if (state === "proving") return "proving";
  if (state === "token-gone") return "token-gone";
  if (mailbox?.state === "credential-refused" || credential?.refused) return "refused";
  if (mailbox?.reason === "credential-kind") return "refused"; // the server takes no passwords any more, or these alone
  if (mailbox?.state === "waiting" && mailbox.reason?.startsWith("http-401")) return "doubtful"; // not sure yet
  switch (mailbox?.state) {
    case "watching":
    case "starting":
      return "well";
    case "verifying":
    case "waiting":
      return "waiting";
    case "paused":
      return "paused";
    case "wiping":
    case "wiped":
      return "wiped";
    default:
      return "blocked";
  }
}

// Returns minutes of the day for "22:30"; null for what is no time.
export function minutes(text) {
  const found = /^([01][0-9]|2[0-3]):([0-5][0-9])$/.exec(text);
  return found ? Number(found[1]) * 60 + Number(found[2]) : null;
}

// Returns "22:30" for minutes of the day.
export function clock(minute) {
  return `${String(Math.floor(minute / 60)).padStart(2, "0")}:${String(minute % 60).padStart(2, "0")}`;
}
