// The session in the page: requests, texts, keys. The canvases are in paint.js.

const $ = (id) => document.getElementById(id);
const address = new URLSearchParams(location.search);
const me = crypto.getRandomValues(new Uint32Array(4)).join("-");  // this window
const ZOOMS = [4, 5, 7, 10, 14, 20, 28];  // screen pixels for one of the file's in the inset
const REQUEST_MS = 20000, FLASH_MS = 900;
const GONE = "the server does not answer; the pixel stays, press the key again when it runs";

let annotator = address.get("annotator") || "";
let info = null;     // what /open said of the whole session
let state = null;    // what the last reply said
let mode = "start";  // start (asks for the name), work, taken (by another window), left
let zoom = ZOOMS.indexOf(10), showSuggestion = false, showOthers = false;
let queue = Promise.resolve();  // requests go one after the other

// Seconds since the pixel was painted, less those in which the page was hidden or had no focus.
const watch = {
  passed: 0, since: null, paused: true,
  start() {
    this.passed = 0;
    this.since = this.paused ? null : performance.now();
  },
  get seconds() {
    return (this.passed + (this.since === null ? 0 : performance.now() - this.since)) / 1000;
  },
  pause(paused) {
    if (paused === this.paused) return;
    this.passed = 1000 * this.seconds;
    this.since = paused ? null : performance.now();
    this.paused = paused;
  },
};

function checkFocus() {
  watch.pause(document.hidden || !document.hasFocus() || !$("goto").hidden);
}

// --- the server ---------------------------------------------------------------------------------

function url(path) {
  const token = address.get("token");
  return path + (token ? `?${new URLSearchParams({token})}` : "");
}

async function post(path, body) {
  const response = await fetch(url(path), {
    method: "POST",
    headers: {"Content-Type": "application/json"},
    body: JSON.stringify({annotator, window: me, ...body}),
    signal: AbortSignal.timeout(REQUEST_MS),
  });
  return {status: response.status, ...await response.json()};
}

async function open() {
  let reply;
  try {
    reply = await post("open");
  } catch {
    reply = {error: "the server does not answer"};
  }
  if (reply.status !== 200) {
    if (mode === "work") return notSaved(reply.error);
    mode = "start";
    only("start");
    $("problem").textContent = reply.error;
    return $("name").focus();
  }
  // The program was started again, perhaps with other images.
  if (info && info.run !== reply.run) return location.reload();
  if (!info) build(reply);
  only("work");
  const again = mode === "work";
  mode = "work";
  show(reply.state, again ? "! the session was closed and is open again; press once more" : "");
}

/* Have the server do something to the state shown; `pressed` is the time of the key's event. */
function act(body, pressed) {
  painted = seen = false;
  queue = queue.then(() => perform(body, pressed));
}

async function perform(body, pressed) {
  if (mode !== "work") return;
  $("saved").textContent = "saving";
  let reply;
  try {
    reply = await post("act", {...body, index: state.index, actions: state.actions});
  } catch {
    return notSaved(GONE);
  }
  if (reply.status === 200) return show(reply.state, reply.message, pressed);
  if (reply.status === 409) return show(reply.state, `! ${reply.error}`);
  if (reply.status === 410) return open();
  notSaved(reply.error);
  if (reply.status === 423) mode = "taken";
}

/* The pixel stays as it was. */
function notSaved(error) {
  painted = true;
  seen = shownBitmap !== null;
  paintedAt = performance.now();
  $("saved").textContent = "NOT SAVED";
  say(`! NOT SAVED: ${error}`, true);
}

function leave() {
  queue = queue.then(async () => {
    if (mode !== "work") return;
    mode = "left";
    let text;
    try {
      const reply = await post("leave");
      text = reply.farewell || reply.error;
    } catch {
      text = "The server does not answer; what was shown as saved is saved.";
    }
    $("farewell").textContent = `${text}\n\nReturn goes on.`;
    only("farewell");
  });
}

// --- texts --------------------------------------------------------------------------------------

function show(next, message, pressed) {
  const otherImage = !state || state.image !== next.image;
  state = next;
  watch.start();  // again when it is painted
  paintState(pressed, otherImage);
  showClasses();
  showProgress();
  if (!message.startsWith("! ")) {
    if (state.finished) message += "  Everything is answered. Esc leaves.";
    else if (state.label !== null) message += `  Answered: ${nameOf(state.label)}`;
  }
  say(message.trim());
}

const nameOf = (label) => label === info.void ? `${label} (none of these)` : label;

/* What stands for an answer: the class's key, Del for void, ? for none. */
function keyOf(label) {
  if (label === null) return "?";
  const found = info.classes.find(({name}) => name === label);
  return found ? found.key.toUpperCase() : "Del";
}

function showClasses() {
  for (const row of $("classes").children) {
    row.lastChild.textContent = state.used[row.dataset.label] || 0;
    if (row.dataset.label === state.label) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }
  const shown = showSuggestion && state.suggestion;
  $("suggestion").hidden = !showSuggestion;
  $("suggestion").textContent = !shown ? ""
    : `model: ${shown[0]} (${keyOf(shown[0])}), ${Math.round(100 * shown[1])} %`;
}

function showProgress() {
  const [image, nImages, pixel, nPixels] = state.position;
  const parts = [`image ${image}/${nImages}`, `pixel ${pixel}/${nPixels}`,
                 `total ${state.n_answered}/${state.n_pixels}`];
  if (state.n_skipped) parts.push(`skipped ${state.n_skipped}`);
  if (state.per_minute !== null) parts.push(`${Math.round(state.per_minute)} labels/min`);
  if (state.seconds_left !== null && !state.finished) {
    parts.push(`${duration(Math.round(state.seconds_left))} left`);
  }
  $("progress").textContent = parts.join("   ");
  $("saved").textContent = "✓ saved";
}

function duration(seconds) {
  const two = (n) => String(n).padStart(2, "0");
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/* A message; one that begins with "! " in other colours, for a moment or until the next one. */
function say(text, stays = false) {
  clearTimeout(say.timer);
  $("message").textContent = text;
  $("bar").classList.toggle("flash", text.startsWith("! "));
  if (!stays) say.timer = setTimeout(() => $("bar").classList.remove("flash"), FLASH_MS);
}

// --- keys ---------------------------------------------------------------------------------------

const doing = (name, step) => (event) => act({do: name, step}, event.timeStamp);
const zooming = (step) => () => {
  zoom = Math.min(Math.max(zoom + step, 0), ZOOMS.length - 1);
  if (shownBitmap) paintCrops();
};
const PLAIN = {
  "Backspace": doing("undo"),
  " ": skip,
  "Delete": (event) => answer(info.void, event),
  "ArrowLeft": doing("look", -1), "ArrowRight": doing("look", 1),
  "PageUp": doing("look_image", -1), "PageDown": doing("look_image", 1),
  "+": zooming(1), "=": zooming(1), "-": zooming(-1),
  "F1": () => { $("help").hidden = !$("help").hidden; },
  "F2": toggleSuggestion,
  "F3": toggleOthers,
  "Enter": accept,
  "Escape": leave,
};
const CONTROL = {"z": doing("undo"), "y": doing("redo"), "g": openGoTo, "q": leave};
const NO_PRESS = ["Shift", "Control", "Alt", "AltGraph", "Meta", "CapsLock", "NumLock",
                  "ScrollLock", "Fn", "Hyper", "Super", "Dead", "Process", "Unidentified"];

addEventListener("keydown", (event) => {
  if (event.target.tagName === "INPUT" || event.isComposing) return;
  if (event.key === "Shift") $("marks").hidden = true;
  if (NO_PRESS.includes(event.key)) return;
  if (mode === "work") press(event);
  else if (event.key === "Enter" && mode !== "start" && !event.repeat) open();
});
addEventListener("keyup", (event) => {
  if (event.key === "Shift") $("marks").hidden = false;
});

function press(event) {
  const letter = event.key.length === 1, control = event.ctrlKey;
  const other = event.altKey || event.metaKey || event.getModifierState("AltGraph");
  const key = letter ? event.key.toLowerCase() : event.key;
  const table = control ? CONTROL : PLAIN;
  let action = !other && Object.hasOwn(table, key) ? table[key] : null;
  if (!action && !control && !other) {
    const found = info.classes.find((of) => of.key === key);
    action = found && (() => answer(found.name, event));
  }
  if (action || (letter && !control && !other)) event.preventDefault();  // not the browser's
  if (event.repeat) return;
  if (action) return action(event);
  const held = (control ? "Ctrl+" : "") + (other ? "Alt+" : "");
  say(`! ${held}${event.key} does nothing here; F1 lists the keys`);
}

/* Nobody labels what they have not seen: the press has to come after the painting. */
function answer(label, event) {
  if (painted && !seen) return say("! this image cannot be read: Space skips, PgDn goes on");
  if (!seen || event.timeStamp < paintedAt) return say("! pressed before the pixel was shown");
  act({do: "answer", label, seconds: watch.seconds}, event.timeStamp);
}

function skip(event) {
  if (!painted || event.timeStamp < paintedAt) return say("! pressed before the pixel was shown");
  act({do: "skip", seconds: watch.seconds}, event.timeStamp);
}

function accept(event) {
  if (!showSuggestion || !state.suggestion) return say("! no suggestion is shown (F2 shows it)");
  answer(state.suggestion[0], event);
}

function toggleSuggestion() {
  if (!state.has_suggestions) return say("! no suggestions: no network has seen these pixels");
  showSuggestion = !showSuggestion;
  showClasses();
}

function toggleOthers() {
  showOthers = !showOthers;
  if (shownBitmap) paintMarks();
}

function openGoTo() {
  $("message").hidden = true;
  $("goto").hidden = false;
  $("goto_text").value = "";
  $("goto_text").focus();
  checkFocus();
}

function closeGoTo() {
  $("goto").hidden = true;
  $("message").hidden = false;
  $("goto_text").blur();
  checkFocus();
}

$("goto").addEventListener("submit", (event) => {
  event.preventDefault();
  act({do: "go_to", text: $("goto_text").value}, event.timeStamp);
  closeGoTo();
});
$("goto").addEventListener("keydown", (event) => {
  if (event.key === "Escape") closeGoTo();
});
$("goto").addEventListener("focusout", () => {
  if (document.hasFocus() && !$("goto").hidden) closeGoTo();
});

// --- the window ---------------------------------------------------------------------------------

function only(id) {
  for (const part of ["work", "start", "farewell"]) $(part).hidden = part !== id;
}

function element(kind, text, name = "") {
  const made = document.createElement(kind);
  made.textContent = text;
  made.className = name;
  return made;
}

/* What stays the same during a session. */
function build(reply) {
  info = reply;
  showOthers = info.show_others;
  document.documentElement.style.setProperty("--scale", info.ui_scale);
  document.title = `PixelPick: ${info.dataset}, ${annotator}`;
  address.set("annotator", annotator);  // for reloading
  history.replaceState(null, "", `?${address}`);
  $("side").classList.toggle("many", info.classes.length > 14);
  for (const {name, key, colour} of [...info.classes, {name: info.void, key: "Del"}]) {
    const row = element("li", "");
    row.dataset.label = name;
    row.append(element("kbd", colour ? key.toUpperCase() : key));
    if (colour) {
      row.append(element("span", "", "swatch"));
      row.lastChild.style.backgroundColor = `rgb(${colour})`;
    }
    row.append(element("span", nameOf(name), "name"), element("span", "0", "count"));
    $("classes").append(row);
  }
  for (const [keys, what] of info.help) $("help").append(element("dt", keys), element("dd", what));
}

$("start").addEventListener("submit", (event) => {
  event.preventDefault();
  annotator = $("name").value.trim();
  open();
});
for (const kind of ["focus", "blur"]) {
  addEventListener(kind, () => {
    checkFocus();
    $("marks").hidden = false;
  });
}
document.addEventListener("visibilitychange", checkFocus);
addEventListener("pagehide", () => {
  if (mode !== "work") return;
  const body = JSON.stringify({annotator, window: me});
  navigator.sendBeacon(url("leave"), new Blob([body], {type: "application/json"}));
});
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
new ResizeObserver(() => {
  if (mode === "work" && shownBitmap) paint();
}).observe($("view"));
checkFocus();
$("name").value = annotator;
if (annotator) open();
