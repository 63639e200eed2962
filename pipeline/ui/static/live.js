// What a page does beside links and forms. Without it everything still works, one page at a time.
"use strict";

function sent(form, button) {
  const fields = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (typeof value === "string") fields.append(name, value);
  if (button && button.name) fields.set(button.name, button.value);
  return fields;
}

async function ask(address, part, fields) {
  const answer = await fetch(address, {
    method: fields ? "POST" : "GET",
    headers: { "X-Part": part },
    body: fields || undefined,
    redirect: "follow",
  });
  if (answer.redirected) { location.assign(answer.url); return null; }
  return { text: await answer.text(), ok: answer.ok, status: answer.status };
}

function put(region, text) {
  const active = document.activeElement;
  const id = active && region.contains(active) ? active.id : "";
  const open = new Set([...region.querySelectorAll("details[open]")].map((one) => one.id));
  region.innerHTML = text;
  for (const one of region.querySelectorAll("details")) if (one.id && open.has(one.id)) one.open = true;
  const wanted = region.querySelector("[data-focus]") || (id && document.getElementById(id));
  if (!wanted) return;
  // A rule that was added, moved or wrapped: its first field, so that the keyboard goes on there.
  const field = "input:not([type=hidden]), select, textarea";
  const place = wanted.matches(`${field}, button, a, summary`) ? wanted : wanted.querySelector(field) || wanted.querySelector("button");
  if (place) place.focus({ preventScroll: false });
}

// ------------------------------------------------------------------------------------------------- the builder

const builder = document.querySelector("form[data-builder]");
if (builder) {
  const tree = document.getElementById("tree");
  const meaning = document.getElementById("meaning");
  const said = document.getElementById("builder-said");
  let looks = 0, waiting = 0, steps = 0, last = Promise.resolve(), changed = Boolean(builder.dataset.unpublished), leaving = false;

  function typed() {
    return new Map([...tree.querySelectorAll("input:not([type=hidden]), select, textarea")].map((one) => [one.id, one.value]));
  }

  // What was typed while the answer was on its way stays, and so does the focus, unless the answer changed that field.
  function keep(before, meanwhile, focused) {
    for (const [id, value] of meanwhile) {
      const field = value !== before.get(id) && document.getElementById(id);
      if (field && field.value === before.get(id)) field.value = value;
    }
    const place = focused && document.getElementById(focused);
    if (place) place.focus();
  }

  // Who signed in anew meanwhile, in another tab, has another key; who is signed out is told, and loses nothing.
  async function signedIn() {
    const answer = await fetch("/form-key").catch(() => null);
    const text = answer ? await answer.text() : "No answer came. What you typed is still here: try again.";
    const ok = Boolean(answer && answer.ok);
    said.textContent = ok ? "" : text;
    if (ok) builder.elements.form_key.value = text;
    return ok;
  }

  async function asked(address, part, pressed) {
    const key = builder.elements.form_key.value;
    const found = await ask(address, part, sent(builder, pressed));
    if (!found || found.status !== 403 || !await signedIn() || key === builder.elements.form_key.value) return found;
    return ask(address, part, sent(builder, pressed));
  }

  async function step(pressed) {
    const before = typed(), place = document.activeElement;
    const lost = { ok: false, text: "No answer came. What you typed is still here: try again." };
    const found = await asked(builder.dataset.builder, "tree", pressed).catch(() => lost);
    if (!found) return;
    said.innerHTML = found.ok ? "" : found.text;
    if (!found.ok) return;
    const meanwhile = typed(), now = document.activeElement;
    put(tree, found.text);
    keep(before, meanwhile, now === place ? "" : now.id);
  }

  // One step after the other, each upon what the one before it made: none is lost when somebody is quick.
  function again(button) {
    const pressed = button ? { name: button.name, value: button.value } : { name: "do", value: "show:n" };
    steps += 1;
    changed = true;
    builder.setAttribute("aria-busy", "true");
    last = last.then(() => step(pressed)).then(() => {
      steps -= 1;
      if (steps) return;
      builder.removeAttribute("aria-busy");
      look(0);
    });
  }

  function look(after) {
    clearTimeout(waiting);
    const mine = ++looks;
    if (steps) return;  // the last of them looks
    waiting = setTimeout(async () => {
      meaning.setAttribute("aria-busy", "true");
      const found = await asked(builder.dataset.meaning, "meaning").catch(() => null);
      if (mine !== looks) return;
      meaning.removeAttribute("aria-busy");
      if (found) put(meaning, found.text);
    }, after);
  }

  builder.addEventListener("submit", (event) => {
    const button = event.submitter;
    if (button && button.name === "do") { event.preventDefault(); again(button); }
    else if (steps) { event.preventDefault(); last.then(() => builder.requestSubmit(button)); }
    else if (leaving) leaving = false;
    else {
      event.preventDefault();
      signedIn().then((ok) => {
        if (!ok) return;
        leaving = true;
        const kept = changed;
        changed = false;
        builder.requestSubmit(button);
        // A download leaves the page where it is.
        setTimeout(() => { changed = kept; }, 1000);
      });
    }
  });
  window.addEventListener("beforeunload", (event) => { if (changed && builder.querySelector("button.main")) event.preventDefault(); });
  builder.addEventListener("change", (event) => { if (event.target.matches("[data-again]")) again(null); });
  builder.addEventListener("input", () => { changed = true; look(350); });
  builder.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !event.target.matches("input")) return;
    event.preventDefault();
    const button = event.target.dataset.enter && document.getElementById(event.target.dataset.enter);
    if (button) again(button); else look(0);
  });
  if (meaning.dataset.first) look(0);
}

// ------------------------------------------------------------------------------------------ regions that follow

for (const region of document.querySelectorAll("[data-follow]")) {
  let last = "";
  setInterval(async () => {
    if (document.hidden || region.contains(document.activeElement)) return;
    const found = await ask(region.dataset.follow, region.id, null).catch(() => null);
    if (found && found.ok && found.text !== last) { put(region, found.text); last = found.text; }
  }, Number(region.dataset.every || 2000));
}

// ------------------------------------------------------------------------------------------------- small things

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-theme-switch]");
  if (!button) return;
  const root = document.documentElement;
  const now = root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
  localStorage.setItem("headwater-theme", root.dataset.theme);
});

document.addEventListener("submit", (event) => {
  const asked = event.submitter && event.submitter.dataset.sure;
  if (asked && !confirm(asked)) event.preventDefault();
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.matches("input, textarea, select")) return;
  const field = document.querySelector('[data-key="/"]');
  if (field) { event.preventDefault(); field.focus(); }
});
