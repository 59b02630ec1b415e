// Keeps the page true: every event asks for the changing part again, at most once a second.
"use strict";
(function () {
  const live = document.getElementById("live");
  const link = document.getElementById("link");
  let asked = false;
  let again = false;
  async function refresh() {
    again = true;
    if (asked) return;
    asked = true;
    again = false;
    try {
      const answer = await fetch(live.dataset.fragment, { cache: "no-store" });
      if (!answer.ok) throw new Error(String(answer.status));
      live.innerHTML = await answer.text();
      link.textContent = "live · " + new Date().toLocaleTimeString("en-GB", { timeZone: "Africa/Nairobi" });
    } catch (problem) {
      link.textContent = "The gateway does not answer. What you see may be old.";
    }
    // What happened meanwhile is shown a second later, not lost.
    setTimeout(function () { asked = false; if (again) refresh(); }, 1000);
  }
  const source = new EventSource("/live");
  source.onmessage = refresh;
  ["receipt.signed", "invoice.received", "invoice.in_doubt", "invoice.rejected", "ceiling.changed",
    "print.queued", "print.printed", "print.blocked", "print.unconfirmed", "print.held", "print.dropped",
    "print.moved", "print.copy", "print.decided", "drawer.opened", "drawer.closed", "capture.unread", "capture.settled",
    "day.closed", "doubt.examined", "doubt.decided", "doubt.quarantined", "unit.ahead", "unit.mismatch", "unit.numbering_decided",
    "outbox.stored", "outbox.parked", "unit.changed", "payment.changed",
    "payment.alarm", "payment.unmatched", "checkout.changed", "webhook.given_up"].forEach(function (kind) {
    source.addEventListener(kind, refresh);
  });
  source.onopen = refresh;
  source.onerror = function () { link.textContent = "The gateway does not answer. What you see may be old."; };
  setInterval(refresh, 10000);
})();
