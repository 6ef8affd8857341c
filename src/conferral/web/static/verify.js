// SPDX-License-Identifier: Apache-2.0
// The form of /verify works without this file. It adds: dropping a file onto the page.

document.addEventListener("DOMContentLoaded", () => {
  customElements.define("drop-area", class extends HTMLElement {
    connectedCallback() {
      const input = this.querySelector("input[type=file]");
      if (!input || !input.form) { return; }
      this.classList.add("ready");
      const hint = document.createElement("p");
      hint.className = "hint";
      hint.textContent = "Drop the file here, or choose it.";
      this.prepend(hint);
      for (const kind of ["dragenter", "dragover"]) {
        this.addEventListener(kind, (event) => { event.preventDefault(); this.classList.add("over"); });
      }
      for (const kind of ["dragleave", "drop"]) {
        this.addEventListener(kind, () => this.classList.remove("over"));
      }
      this.addEventListener("drop", (event) => {
        event.preventDefault();
        if (!event.dataTransfer?.files.length) { return; }
        input.files = event.dataTransfer.files;
        input.form.requestSubmit();
      });
    }
  });
});
