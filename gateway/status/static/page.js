// Keeps the page true. The changing part is fetched again every 1.5 s, and at once after an event; a page without
// one asks whether the gateway answers. What 3 s have not confirmed turns grey: banner, title and icon.
"use strict";
(function () {
  const EVERY_MS = 1500;
  const MISSED_MS = 3000;
  const STREAM_AGAIN_MS = 30000;
  const live = document.getElementById("live");
  const link = document.getElementById("link");
  const icon = document.getElementById("icon");
  const fragment = live ? live.dataset.fragment : undefined;
  const title = document.title;
  let confirmed = { wall: Date.now(), steady: performance.now() };
  let shown = null;
  let stale = null;
  let asking = false;
  let again = false;
  let timer = 0;

  function at(wall, seconds) {
    const options = { timeZone: "Africa/Nairobi", hour: "2-digit", minute: "2-digit" };
    if (seconds) options.second = "2-digit";
    return new Date(wall).toLocaleTimeString("en-GB", options);
  }

  // One of the two clocks stands still while a phone sleeps, the other one may be set back.
  function age() {
    return Math.max(Date.now() - confirmed.wall, performance.now() - confirmed.steady);
  }

  function banner() {
    return document.querySelector(".banner");
  }

  function dress() {
    const top = banner();
    if (!top) return;
    document.title = stale ? stale.title : top.dataset.title || title;
    const colour = getComputedStyle(top).backgroundColor;
    icon.href = "data:image/svg+xml," + encodeURIComponent(
      '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="' +
      colour + '"/><path d="M9 6h14v20l-2.3-1.6L18.300 26 16 24.400 13.700 26l-2.400-1.600L9 26z" fill="#fff"/></svg>');
  }

  function element(name, text, className) {
    const made = document.createElement(name);
    made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function length(ms) {
    const seconds = Math.round(ms / 1000);
    if (seconds < 60) return seconds + " s";
    const minutes = Math.floor(seconds / 60);
    return minutes < 60 ? minutes + " min " + (seconds % 60) + " s" : Math.floor(minutes / 60) + " h " + (minutes % 60) + " min";
  }

  function missed() {
    const top = banner();
    if (!top) return;
    if (!stale) {
      const words = top.querySelector("h1");
      const since = at(confirmed.wall);
      stale = { title: "No answer since " + since, count: element("span", "") };
      const alert = element("div", "");
      alert.setAttribute("role", "alert");
      alert.append(element("h1", stale.title));
      alert.append(element("p", "What stood here may be wrong: " + (words ? words.textContent : title) + ".", "sentence"));
      const line = element("p", "The gateway has not answered for ");
      line.append(stale.count, ".");
      top.replaceChildren(alert, line);
      document.documentElement.classList.add("stale");
      if (link) link.textContent = "page as of " + at(confirmed.wall, true);
      dress();
    }
    stale.count.textContent = length(age());
  }

  function confirm(text) {
    confirmed = { wall: Date.now(), steady: performance.now() };
    if (!fragment) {
      if (stale) backAgain();
      return;
    }
    if (stale || text !== shown) {
      stale = null;
      document.documentElement.classList.remove("stale");
      live.innerHTML = text;
      shown = text;
      dress();
    }
    if (link) link.textContent = "live · " + at(confirmed.wall, true);
  }

  // This page shows one moment. What happened while there was no answer is not on it.
  function backAgain() {
    if (stale.back) return;
    stale.back = true;
    stale.title = "Load this page again";
    const again = element("a", "Load this page again");
    again.href = location.pathname;
    const line = element("p", "The gateway answers again. ", "sentence");
    line.append(again, ": what stood here may have changed.");
    banner().replaceChildren(element("h1", "It answers again"), line);
    dress();
  }

  async function ask() {
    if (asking) {
      again = true;
      return;
    }
    asking = true;
    again = false;
    clearTimeout(timer);
    const stop = new AbortController();
    const late = setTimeout(function () { stop.abort(); }, MISSED_MS);
    try {
      const answer = await fetch(fragment || "/alive", { cache: "no-store", signal: stop.signal });
      // The store cannot be used: the page at this address says why.
      if (fragment && answer.headers.has("Gateway-Stopped")) location.replace(location.pathname);
      // A login page of the network or another machine at this address confirms nothing.
      if (!answer.ok || !answer.headers.has("Pos-Gateway")) throw new Error(String(answer.status));
      confirm(await answer.text());
    } catch (problem) {
      if (!(stale && stale.back)) missed();
    }
    clearTimeout(late);
    asking = false;
    timer = setTimeout(ask, again ? 1000 : EVERY_MS);
  }

  function look() {
    if (age() > MISSED_MS && !(stale && stale.back)) missed();
  }

  function listen() {
    const source = new EventSource("/live");
    ["message", "open", "receipt.signed", "invoice.received", "invoice.in_doubt", "invoice.rejected", "ceiling.changed",
      "print.queued", "print.printed", "print.blocked", "print.unconfirmed", "print.held", "print.dropped",
      "print.moved", "print.copy", "print.decided", "drawer.opened", "drawer.closed", "capture.unread", "capture.settled",
      "day.closed", "doubt.examined", "doubt.decided", "doubt.quarantined", "unit.ahead", "unit.mismatch", "unit.numbering_decided",
      "outbox.stored", "outbox.parked", "unit.changed", "payment.changed",
      "payment.alarm", "payment.unmatched", "checkout.changed", "webhook.given_up"].forEach(function (kind) {
      source.addEventListener(kind, ask);
    });
    // A stream that ends, or that there is no place for, says nothing of the state: only an answer does.
    source.onerror = function () {
      ask();
      if (source.readyState === EventSource.CLOSED) setTimeout(listen, STREAM_AGAIN_MS);
    };
  }

  dress();
  setInterval(look, 500);
  document.addEventListener("visibilitychange", function () { if (!document.hidden) { look(); ask(); } });
  window.addEventListener("pageshow", function (event) { if (event.persisted) { look(); ask(); } });
  window.addEventListener("offline", ask);
  window.addEventListener("online", ask);
  ask();
  if (fragment) listen();
})();
