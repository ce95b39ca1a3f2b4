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
