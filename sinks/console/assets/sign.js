"use strict";
// Signs a verdict or a decision with somebody's key, which is read from its file and goes nowhere.
(() => {
  const DOMAINS = { verdict: "pgwitness verdict 1\n", approval: "pgwitness approval 1\n" };

  const bytes = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

  async function sign(pem, text, what = "verdict") {
    const body = /-----BEGIN PRIVATE KEY-----([\sA-Za-z0-9+/=]+)-----END PRIVATE KEY-----/.exec(pem);
    if (!body) {
      throw new Error("This file is no private key as `pgwitness alerts key` makes it.");
    }
    const der = bytes(body[1].replace(/\s/g, ""));
    const key = await crypto.subtle.importKey("pkcs8", der, { name: "Ed25519" }, false, ["sign"]);
    const signature = await crypto.subtle.sign("Ed25519", key, new TextEncoder().encode(DOMAINS[what] + text));
    return btoa(String.fromCharCode(...new Uint8Array(signature)));
  }

  if (typeof document === "undefined") {
    globalThis.sign = sign;
    return;
  }
  document.addEventListener("DOMContentLoaded", () => {
    const form = document.getElementById("sign");
    const trouble = document.getElementById("trouble");
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      try {
        const file = document.getElementById("key").files[0];
        form.elements.signature.value = await sign(await file.text(), form.elements.signed.value, form.dataset.signs);
        form.submit();
      } catch (error) {
        trouble.textContent = error.name === "NotSupportedError" ? "This browser cannot sign with Ed25519." : error.message;
        trouble.hidden = false;
      }
    });
  });
})();
