// SPDX-License-Identifier: Apache-2.0
// Everything works without this file. It adds: a choice of light and dark, "5 minutes ago", copying,
// and parts of pages that follow what happens.

const THEME = "conferral-theme";
const root = document.documentElement;

function remembered() {
  try { return localStorage.getItem(THEME); } catch { return null; }
}

function wear(theme) {
  if (theme) root.dataset.theme = theme; else delete root.dataset.theme;
}
wear(remembered());

// This file is read before the page, so that no page flashes in the other colours; the elements
// are furnished once their content is there.
document.addEventListener("DOMContentLoaded", () => {
  customElements.define("theme-switch", class extends HTMLElement {
    connectedCallback() {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "quiet";
      button.addEventListener("click", () => {
        const next = this.isDark() ? "light" : "dark";
        wear(next);
        try { localStorage.setItem(THEME, next); } catch { /* a browser that keeps nothing */ }
        this.name(button);
      });
      this.name(button);
      this.replaceChildren(button);
    }
    isDark() {
      return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    }
    name(button) { button.textContent = this.isDark() ? "Light" : "Dark"; }
  });

  const STEPS = [[60, "second"], [60, "minute"], [24, "hour"], [30, "day"], [12, "month"], [Infinity, "year"]];
  const relative = new Intl.RelativeTimeFormat(root.lang, { numeric: "auto" });

  customElements.define("time-ago", class extends HTMLElement {
    connectedCallback() {
      const time = this.querySelector("time");
      if (!time) { return; }
      this.title = time.textContent;
      const tell = () => { time.textContent = this.words(new Date(time.dateTime)); };
      tell();
      this.timer = setInterval(tell, 15000);
    }
    disconnectedCallback() { clearInterval(this.timer); }
    words(then) {
      let amount = (then - Date.now()) / 1000;
      for (const [size, unit] of STEPS) {
        if (Math.abs(amount) < size) { return relative.format(Math.round(amount), unit); }
        amount /= size;
      }
      return "";
    }
  });

  customElements.define("copy-text", class extends HTMLElement {
    connectedCallback() {
      const button = this.querySelector("button");
      const label = button?.querySelector("span");
      if (!button || !label || !navigator.clipboard) { return; }
      button.hidden = false;
      const said = label.textContent;
      button.addEventListener("click", async () => {
        try {
          await navigator.clipboard.writeText(button.dataset.text);
          label.textContent = "Copied";
        } catch { label.textContent = "Press Ctrl+C"; }
        setTimeout(() => { label.textContent = said; }, 2000);
      });
    }
  });

  // <live-part id="x" every="3">: fetches this page again and takes the part of the same id from it.
  customElements.define("live-part", class extends HTMLElement {
    connectedCallback() {
      const seconds = Number(this.getAttribute("every"));
      if (seconds) { this.timer = setInterval(() => this.follow(), 1000 * seconds); }
    }
    disconnectedCallback() { clearInterval(this.timer); }
    async follow() {
      if (document.hidden || this.contains(document.activeElement)) { return; }
      try {
        const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
        if (!answer.ok || answer.redirected) { return; }
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const fresh = page.getElementById(this.id);
        if (!fresh) { return; }
        this.replaceChildren(...fresh.childNodes);
        const status = document.getElementById(`${this.id}-status`);
        const said = page.getElementById(`${this.id}-status`);
        if (status && said && status.textContent !== said.textContent) { status.textContent = said.textContent; }
        if (!fresh.hasAttribute("every")) { clearInterval(this.timer); }
      } catch { /* away for a moment: the next look is soon */ }
    }
  });
});
