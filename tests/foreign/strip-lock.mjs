// SPDX-License-Identifier: Apache-2.0
// Removes funding notes from package-lock.json: the lock holds integrity hashes and no addresses.
import {readFileSync, writeFileSync} from 'node:fs';

const path = new URL('package-lock.json', import.meta.url);
const lock = JSON.parse(readFileSync(path, 'utf8'));
for(const entry of Object.values(lock.packages)) {
  delete entry.funding;
  delete entry.resolved;
}
writeFileSync(path, JSON.stringify(lock, null, 2) + '\n');
