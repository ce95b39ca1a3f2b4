"use strict";
// Times by the reader's own clock; what the page says in UTC stays beside it.
(() => {
  const local = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  const show = (root) => {
    for (const element of root.querySelectorAll("time[datetime]:not([title])")) {
      const moment = new Date(element.dateTime);
      if (!Number.isNaN(moment.getTime())) {
        element.title = local.format(moment) + ", your time";
      }
    }
  };
  document.addEventListener("DOMContentLoaded", () => show(document));
  document.addEventListener("htmx:sseMessage", (event) => show(event.target));
  document.addEventListener("htmx:afterSettle", (event) => show(event.target));
})();
// The inbox by keyboard. Keys count while the list has the focus and nowhere else: a letter may mean something to others.
(() => {
  const STEPS = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
  document.addEventListener("DOMContentLoaded", () => {
    const inbox = document.getElementById("inbox");
    inbox?.addEventListener("keydown", (event) => {
      const step = STEPS[event.key];
      if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) {
        return;
      }
      const links = [...inbox.querySelectorAll("a")];
      const next = links.indexOf(document.activeElement) + step;
      links[Math.min(Math.max(next, 0), links.length - 1)]?.focus();
      event.preventDefault();
    });
  });
})();
