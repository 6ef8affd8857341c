// SPDX-License-Identifier: Apache-2.0
// Presses "Check it in this browser" and brings files to /verify. Reads one JSON job from standard input.
//
// {"base", "chromium", "out": "dir" | null, "page": "/c/…", "file": "certificate.pdf", "tampered": "path"}

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
const report = { said: [], faults: [], checks: {}, verdicts: {} };
const browser = await chromium.launch({ executablePath: job.chromium, args: ["--no-sandbox"] });

async function look(page, name) {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  if (wide > 0) { report.faults.push(`${name}: ${wide} px too wide`); }
  if (job.out) { await page.screenshot({ path: `${job.out}/${name}.png`, fullPage: true }); }
  await page.evaluate(axe);
  const found = await page.evaluate(() => axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
  report.faults.push(...found.violations.map((one) => `${name}: ${one.id} ${one.nodes.map((node) => node.target.join(" ")).slice(0, 3).join(", ")}`));
}

async function own(context, prepare) {
  const page = await context.newPage();
  page.on("console", (message) => { if (message.type() === "error") { report.said.push(message.text()); } });
  page.on("pageerror", (error) => report.said.push(error.message));
  await prepare(page);
  await page.goto(job.base + job.page, { waitUntil: "networkidle" });
  await page.click("browser-check button");
  await page.waitForFunction(() => {
    const said = document.querySelector("browser-check [role=status]").textContent;
    return said && said !== "Checking…";
  });
  const told = {
    checks: await page.$$eval("browser-check li", (items) => items.map((item) => [item.className.slice(5), item.querySelector("strong").textContent, item.querySelector("div > span").textContent])),
    status: await page.textContent("browser-check [role=status]"),
  };
  return [page, told];
}

for (const [view, options] of Object.entries(VIEWS)) {
  const context = await browser.newContext(options);
  const [page, told] = await own(context, async () => {});
  report.checks[view] = told;
  await look(page, `own-check.${view}`);
  for (const [name, file] of Object.entries(job.files)) {
    await page.goto(`${job.base}/verify`, { waitUntil: "networkidle" });
    if (name === "valid") { await look(page, `verify.${view}`); }
    await page.setInputFiles("#file", file);
    await page.click("button.primary");
    await page.waitForSelector(".verdict h1");
    report.verdicts[`${name}.${view}`] = await page.textContent(".verdict h1");
    await look(page, `judged-${name}.${view}`);
  }
  await context.close();
}

const changes = {
  forged: (page) => page.route("**/credential.json", async (route) => {
    const answer = await route.fetch();
    await route.fulfill({ response: answer, body: (await answer.text()).replace("Ada Lovelace", "Eve Lovelace") });
  }),
  repainted: (page) => page.route("**/base.pdf", async (route) => {
    const answer = await route.fetch();
    const body = await answer.body();
    body[500] ^= 1;
    await route.fulfill({ response: answer, body });
  }),
  otherleaf: (page) => page.route("**/proof", async (route) => {
    const answer = await route.fetch();
    await route.fulfill({ response: answer, body: (await answer.text()).replace("index 0", "index 1") });
  }),
  old: (page) => page.addInitScript(() => {
    const plain = SubtleCrypto.prototype.importKey;
    SubtleCrypto.prototype.importKey = function importKey(format, key, algorithm, ...rest) {
      if (algorithm === "Ed25519") { return Promise.reject(new DOMException("no", "NotSupportedError")); }
      return plain.call(this, format, key, algorithm, ...rest);
    };
  }),
  insecure: (page) => page.addInitScript(() => Object.defineProperty(crypto, "subtle", { value: undefined })),
};
for (const [name, prepare] of Object.entries(changes)) {
  const context = await browser.newContext(VIEWS.light);
  const [page, told] = await own(context, prepare);
  report.checks[name] = told;
  if (job.out) { await page.screenshot({ path: `${job.out}/own-check.${name}.png`, fullPage: true }); }
  await context.close();
}

const context = await browser.newContext(VIEWS.light);
const page = await context.newPage();
await page.goto(`${job.base}/verify`, { waitUntil: "networkidle" });
await page.evaluate((text) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([text], "credential.json", { type: "application/json" }));
  document.querySelector("drop-area").dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}, readFileSync(job.json, "utf8"));
await page.waitForSelector(".verdict h1");
report.verdicts.dropped = await page.textContent(".verdict h1");
await browser.close();
console.log(JSON.stringify(report, null, 1));
