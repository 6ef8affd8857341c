// SPDX-License-Identifier: Apache-2.0
// The browser's check outside of a browser: reads signed documents from standard input, one JSON a line, and
// prints for each the hash that was signed, or why it is refused.

import { createInterface } from "node:readline";
import { hashToSign } from "../../src/conferral/web/static/browser-check.js";

for await (const line of createInterface({ input: process.stdin })) {
  try {
    console.log(Buffer.from(await hashToSign(JSON.parse(line))).toString("hex"));
  } catch (error) {
    console.log(`refused: ${error.message}`);
  }
}
