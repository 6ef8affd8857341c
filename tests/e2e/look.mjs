// SPDX-License-Identifier: Apache-2.0
// Looks at pages with Chromium: screenshots in light, dark and at 320 px, axe on each, and what the
// console said. Reads one JSON job from standard input, prints one JSON report.
//
// {"base": "http://localhost:8000", "chromium": "/usr/bin/chromium", "out": "dir",
//  "login": {"email": "…", "password": "…"} | null, "pages": {"name": "/path"}, "javascript": true}

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const require = createRequire(import.meta.url);
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const job = JSON.parse(readFileSync(0, "utf8"));
const VIEWS = {
  light: { viewport: { width: 1280, height: 900 }, colorScheme: "light" },
  dark: { viewport: { width: 1280, height: 900 }, colorScheme: "dark" },
  narrow: { viewport: { width: 320, height: 640 }, colorScheme: "light", hasTouch: true },
};

const report = { pages: {}, said: [] };
const browser = await chromium.launch({ executablePath: job.chromium, args: ["--no-sandbox"] });
for (const [view, options] of Object.entries(VIEWS)) {
  // axe itself is injected by the debugger; the pages' own policy is tested without bypassing it.
  const context = await browser.newContext({ ...options, javaScriptEnabled: job.javascript ?? true });
  const page = await context.newPage();
  page.on("console", (message) => {
    if (message.type() === "error") { report.said.push(`${view}: ${message.text()}`); }
  });
  page.on("pageerror", (error) => report.said.push(`${view}: ${error.message}`));
  if (job.login) {
    await page.goto(`${job.base}/console/login`);
    await page.fill("#email", job.login.email);
    await page.fill("#password", job.login.password);
    await page.click("button.primary");
    await page.waitForURL("**/console/");
  }
  for (const [name, path] of Object.entries(job.pages)) {
    const answer = await page.goto(job.base + path, { waitUntil: "networkidle" });
    const found = (report.pages[`${name}.${view}`] = { status: answer.status() });
    found.overflow = await page.evaluate(
      () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
    );
    if (job.out) { await page.screenshot({ path: `${job.out}/${name}.${view}.png`, fullPage: true }); }
    if (job.javascript ?? true) {
      await page.evaluate(axe);
      const result = await page.evaluate(() =>
        axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
      found.violations = result.violations.map(
        (one) => `${one.id}: ${one.nodes.map((node) => node.target.join(" ")).slice(0, 3).join(", ")}`);
    }
  }
  await context.close();
}
await browser.close();
console.log(JSON.stringify(report, null, 1));
