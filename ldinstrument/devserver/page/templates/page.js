// The server renders everything; this fetches the page again when something has changed, and puts in place what is new.
"use strict";

const PAUSE = 1000;
const live = document.getElementById("live");
let busy = false;
let again = false;

function say(text) {
  if (live.textContent !== text) live.textContent = text;
}

// What somebody opened stays open, and where somebody types nothing is replaced.
function replace(fresh) {
  const old = document.getElementById(fresh.id);
  if (!old) return;
  const focus = document.activeElement;
  if (old.contains(focus) && focus.matches("input, textarea, select")) return;
  if (fresh.tagName === "DETAILS") fresh.open = old.open;
  for (const made of fresh.querySelectorAll("details[id]")) {
    const known = document.getElementById(made.id);
    made.open = Boolean(known && known.open);
  }
  if (old.isEqualNode(fresh)) return;
  const focused = old.contains(focus) && focus.id;
  old.replaceWith(fresh);
  if (focused) document.getElementById(focused)?.focus();
}

async function refresh() {
  const answer = await fetch(location.pathname + location.search, { headers: { Accept: "text/html" } });
  if (!answer.ok) throw new Error(String(answer.status));
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of page.querySelectorAll("[data-live]")) replace(document.adoptNode(part));
}

// One refresh at a time, at most one a second; what changes meanwhile causes exactly one more.
async function changed() {
  if (busy) { again = true; return; }
  busy = true;
  try {
    do {
      again = false;
      await refresh();
      say("live");
      await new Promise((done) => setTimeout(done, PAUSE));
    } while (again);
  } catch {
    say("not reachable");
  } finally {
    busy = false;
  }
}

const stream = new EventSource("/dev/stream");
stream.addEventListener("revision", changed);
stream.addEventListener("error", () => say("not reachable"));

// Searches are answered while typing; without script the button does it.
for (const form of document.querySelectorAll("form.search")) {
  let timer = 0;
  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      const asked = new URLSearchParams(location.search);
      const field = form.querySelector("input[type=search]");
      asked.set(field.name, field.value);
      history.replaceState(null, "", `?${asked}${location.hash}`);
      changed();
    }, 250);
  });
}
