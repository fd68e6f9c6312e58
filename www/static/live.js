// Puts new values into the page. The server makes every page whole; this fetches it again when something happened and takes
// over what differs, so there is one place that knows how things look. Without this script everything can be read and done.
"use strict";
(() => {
  const root = document.documentElement, $ = (q, of = document) => of.querySelector(q), all = (q, of = document) => [...of.querySelectorAll(q)];
  root.classList.add("js");

  // ---- new values ----------------------------------------------------------------------------------------------------
  /** Makes `old` like `fresh`, touching only what differs: what is being typed, opened or focused stays. */
  function morph(old, fresh) {
    if (old.isEqualNode(fresh)) return;
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) return void old.replaceWith(fresh.cloneNode(true));
    if (old.nodeType !== Node.ELEMENT_NODE) return void (old.data !== fresh.data && (old.data = fresh.data));
    for (const { name, value } of [...fresh.attributes]) if (old.getAttribute(name) !== value && !(name === "open")) old.setAttribute(name, value);
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
    if (old.matches("input, select, textarea")) return;
    const byId = new Map(all(":scope > [id]", old).map(e => [e.id, e]));
    let at = old.firstChild;
    for (const next of [...fresh.childNodes]) {
      const own = next.id && byId.get(next.id);
      if (own && own !== at) old.insertBefore(own, at), at = own;
      if (!at) { old.append(next.cloneNode(true)); continue; }
      const after = at.nextSibling;
      // A row that is not there yet is put in, not written over another one.
      if (next.id && !own) { old.insertBefore(next.cloneNode(true), at); continue; }
      morph(at, next);
      at = after;
    }
    while (at) { const after = at.nextSibling; at.remove(); at = after; }
  }

  const lost = $("#lost");
  let since = 0, busy = false, again = false, due = 0, pause = 1000, touched = Date.now(), told = touched;
  // A page that nobody has touched for two minutes shows what happens at once, and new measurements every two minutes.
  const untouched = () => Date.now() - touched > 120_000;
  for (const what of ["pointermove", "pointerdown", "keydown", "wheel", "focus"]) {
    addEventListener(what, e => {
      // A pointer that rests may be told to have moved when the page changes below it.
      if (what === "pointermove" && !e.movementX && !e.movementY) return;
      if (untouched()) due = 0;
      touched = Date.now();
    }, { capture: true, passive: true });
  }
  function trouble(why) {
    since ||= Date.now();
    root.classList.toggle("stale", Boolean(why));
    if (!lost) return;
    lost.hidden = !why;
    if (!why) since = 0;
    else $("span", lost).textContent = `No connection since ${new Date(since).toISOString().slice(11, 19)} UTC (${why}); all values below are old.`;
  }
  async function refresh() {
    if (busy) return void (again = true);
    busy = true; again = false;
    const start = performance.now();
    // An open page alone keeps nobody logged in; somebody who reads, scrolls or types in it does.
    const headers = { Accept: "text/html", ...(touched === told && { "X-Refresh": "1" }) };
    told = touched;
    try {
      const answer = await fetch(location.href.split("#")[0], { headers, signal: AbortSignal.timeout(10000) });
      if (answer.redirected && new URL(answer.url).pathname === "/log-in") return void location.assign("/log-in?to=" + encodeURIComponent(location.pathname + location.search));
      const text = await answer.text();
      if (answer.status >= 500 && !text.includes("data-live")) throw new Error("HTTP " + answer.status);
      const page = new DOMParser().parseFromString(text, "text/html");
      for (const part of all("[data-live]")) {
        const fresh = page.getElementById(part.id);
        // A question that is open is not taken away.
        if (fresh && !$(".ask[open]", part)) morph(part, fresh);
      }
      if (document.title !== page.title && page.title) document.title = page.title;
      trouble("");
    } catch (error) {
      trouble(error.name === "TimeoutError" ? "no answer" : navigator.onLine ? error.message : "offline");
    } finally {
      // A slow line or a large page is not asked for more often than it can bear.
      pause = Math.max(1000, 12 * (performance.now() - start));
      due = Date.now() + (untouched() ? Math.max(pause, 120_000) : pause);
      busy = false;
      if (again) soon();
    }
  }
  let timer;
  function soon() { clearTimeout(timer); timer = setTimeout(refresh, 150); }
  function tick() { if (!document.hidden && Date.now() >= due) refresh(); }

  if ($("[data-live]") && $("nav")) {
    const idle = !$("[data-guard], #text");
    let stream, lines = 0;
    const open = () => {
      stream = new EventSource("/api/v1/stream?status=false" + ($("#io") ? "&io=true" : ""));
      stream.addEventListener("event", soon);
      // The page finds out what is wrong.
      stream.addEventListener("error", soon);
      // Lines may change without end: a little later, not the later the more.
      stream.addEventListener("io", () => lines ||= setTimeout(() => { lines = 0; refresh(); }, Math.max(100, pause / 4)));
      stream.addEventListener("end", () => { stream.close(); refresh(); });
    };
    open();
    setInterval(tick, 250);
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) return void stream.close();
      open();
      refresh();
    });
    addEventListener("pagehide", () => stream.close());
    addEventListener("pageshow", e => { if (e.persisted) location.reload(); });
    due = Date.now() + (idle ? 500 : 1000);
  }

  // ---- how long ago --------------------------------------------------------------------------------------------------
  const offset = Date.now() - Date.parse($("#clock")?.dateTime || new Date().toISOString());
  const rough = s => s < 60 ? `${s} s` : s < 3600 ? `${s / 60 | 0} min` : s < 86400 ? `${s / 3600 | 0} h` : `${s / 86400 | 0} d`;
  setInterval(() => {
    if (document.hidden || root.classList.contains("stale")) return;
    const now = Date.now() - offset;
    for (const time of all("[data-ago]")) {
      const s = Math.floor((now - Date.parse(time.dateTime)) / 1000), text = time.dataset.ago ? `for ${rough(Math.max(0, s))}` : s < -1 ? `in ${rough(-s)}` : s < 1 ? "just now" : `${rough(s)} ago`;
      if (s === s && time.textContent !== text) time.textContent = text;
    }
  }, 1000);
  document.addEventListener("mouseover", e => {
    const time = e.target.closest?.("time[datetime]");
    if (time && !time.title.includes("here")) time.title += ` · here ${new Date(time.dateTime).toLocaleString()}`;
  });

  // ---- questions and filters -----------------------------------------------------------------------------------------
  document.addEventListener("click", e => all(".ask[open]").forEach(ask => ask.contains(e.target) || (ask.open = false)));
  document.addEventListener("keydown", e => {
    if (e.key !== "Escape") return;
    const ask = $(".ask[open]");
    if (ask) { ask.open = false; $("summary", ask).focus(); }
  });
  document.addEventListener("toggle", e => { if (e.target.matches?.(".ask") && e.target.open) $(".pop button, .pop input:not([type=hidden])", e.target)?.focus({ preventScroll: true }); }, true);
  for (const form of all("[data-filter]")) form.addEventListener("input", () => {
    const query = new URLSearchParams([...new FormData(form)].filter(([, v]) => v));
    history.replaceState(null, "", location.pathname + (query.size ? "?" + query : ""));
    soon();
  });
  for (const list of all("[data-go]")) list.addEventListener("change", () => location.assign(list.value));

  // ---- forms ---------------------------------------------------------------------------------------------------------
  for (const form of all("[data-guard]")) {
    const was = JSON.stringify([...new FormData(form)]), before = new Map([...new FormData(form)]), button = $("[data-count]", form), marked = all(".field.changed", form).length;
    let sent = false;
    const changed = () => JSON.stringify([...new FormData(form)]) !== was;
    form.addEventListener("input", () => {
      if (!button) return;
      const now = new Map([...new FormData(form)]);
      const n = marked + [...now].filter(([k, v]) => before.get(k) !== v).length;
      button.textContent = n ? `Review ${n} ${n === 1 ? "change" : "changes"}` : "Review the change";
    });
    form.addEventListener("submit", () => sent = true);
    addEventListener("beforeunload", e => { if (!sent && changed()) e.preventDefault(); });
  }
  for (const link of all("[data-line]")) link.addEventListener("click", e => {
    const text = $("#text");
    e.preventDefault();
    const lines = text.value.split("\n"), line = Number(link.dataset.line) - 1, start = lines.slice(0, line).join("\n").length + (line ? 1 : 0);
    text.focus();
    text.setSelectionRange(start, start + (lines[line] || "").length);
    text.scrollTop = Math.max(0, line - 5) * (text.scrollHeight / lines.length);
  });

  // ---- logs ----------------------------------------------------------------------------------------------------------
  const log = $("#log[data-stream]");
  if (log) {
    const follow = $("#follow"), said = $("#following"), levels = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"], wanted = levels.indexOf(log.dataset.level);
    let stream;
    $(".follow").hidden = false;
    log.scrollTop = log.scrollHeight;
    const parse = text => {
      const [, time, rest] = /^(\d{4}-\d\d-\d\dT\S+Z) (.*)$/s.exec(text) || [, "", text];
      const level = rest.split(/\s+/, 4).map(w => w.replace(/^[^a-z]+|[^a-z]+$/gi, "")).find(w => levels.includes(w)) || "";
      return { time, rest, level, shown: (time ? time.slice(11, 23) + " " : "") + rest };
    };
    const add = ({ time, rest, level }) => {
      const line = document.createElement("li");
      line.className = level.toLowerCase();
      if (time) {
        const at = document.createElement("time");
        at.dateTime = at.title = time; at.className = "num"; at.textContent = time.slice(11, 23);
        line.append(at, " ");
      }
      line.append(rest);
      log.append(line);
    };
    let first;
    const start = () => {
      stream?.close();
      if (!follow.checked || document.hidden) return void (said.textContent = "");
      stream = new EventSource(log.dataset.stream);
      first = true;
      said.textContent = "new lines appear as they are written";
      stream.addEventListener("lines", e => {
        const low = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
        let lines = JSON.parse(e.data).map(parse).filter(l => wanted < 0 || !l.level || levels.indexOf(l.level) <= wanted);
        if (first) {
          // The stream begins with some lines that may stand here already: what was written meanwhile is not missed.
          const known = [...log.children].slice(-lines.length).map(l => l.textContent);
          let n = Math.min(known.length, lines.length);
          while (n && !lines.slice(0, n).every((l, i) => l.shown === known[known.length - n + i])) n--;
          lines = lines.slice(n);
          first = false;
        }
        lines.forEach(add);
        while (log.childElementCount > 5000) log.firstChild.remove();
        if (low) log.scrollTop = log.scrollHeight;
      });
      stream.onerror = () => { first = true; said.textContent = "no connection; trying again"; };
      stream.onopen = () => said.textContent = "new lines appear as they are written";
    };
    follow.addEventListener("change", start);
    document.addEventListener("visibilitychange", start);
    addEventListener("pagehide", () => stream?.close());
    start();
  }
})();
