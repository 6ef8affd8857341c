// SPDX-License-Identifier: Apache-2.0
// Checks a certificate in the reader's own browser: the signature, the pages, the path into the public log.
// The page stands without this file. It reads documents in the form that Conferral issues and nothing else:
// every term with its meaning stands in the table below, as in the offline verifier.

const VC = "https://www.w3.org/2018/credentials#";
const STATUS = "https://www.w3.org/ns/credentials/status#";
const OB = "https://purl.imsglobal.org/spec/vc/ob/vocab.html#";
const SCHEMA = "https://schema.org/";
const SECURITY = "https://w3id.org/security#";
const XSD = "http://www.w3.org/2001/XMLSchema#";
const XSD_OF_BADGES = "https://www.w3.org/2001/XMLSchema#";
const RDF_TYPE = "http://www.w3.org/1999/02/22-rdf-syntax-ns#type";
const CONTEXTS = ["https://www.w3.org/ns/credentials/v2", "https://purl.imsglobal.org/spec/ob/v3p0/context-3.0.3.json"];
const TYPES = {
  VerifiableCredential: VC, OpenBadgeCredential: OB, Profile: OB, AchievementSubject: OB, IdentityObject: OB,
  Achievement: OB, BitstringStatusListEntry: STATUS,
};
// node: [its types, {term: [full name, kind]}]; "" is plain text, @… another node, …[] one or several
const NODES = {
  "@credential": [["VerifiableCredential", "OpenBadgeCredential"], {
    name: [SCHEMA + "name", ""], description: [SCHEMA + "description", ""], issuer: [VC + "issuer", "@issuer"],
    validFrom: [VC + "validFrom", XSD + "dateTime"], validUntil: [VC + "validUntil", XSD + "dateTime"],
    credentialSubject: [VC + "credentialSubject", "@subject"],
    relatedResource: [VC + "relatedResource", "@resource[]"],
    credentialStatus: [VC + "credentialStatus", "@status"],
  }],
  "@issuer": [["Profile"], { name: [SCHEMA + "name", ""], url: [SCHEMA + "url", XSD_OF_BADGES + "anyURI"] }],
  "@subject": [["AchievementSubject"], {
    identifier: [OB + "identifier", "@identity[]"], achievement: [OB + "achievement", "@achievement"],
  }],
  "@identity": [["IdentityObject"], {
    identityType: [OB + "identityType", ""], identityHash: [OB + "identityHash", ""],
    hashed: [OB + "hashed", XSD_OF_BADGES + "boolean"], salt: [OB + "salt", ""],
  }],
  "@achievement": [["Achievement"], {
    achievementType: [OB + "achievementType", ""], name: [SCHEMA + "name", ""],
    description: [SCHEMA + "description", ""], criteria: [OB + "Criteria", "@criteria"],
  }],
  "@criteria": [[], { narrative: [OB + "narrative", ""] }],
  "@resource": [[], { mediaType: [SCHEMA + "encodingFormat", ""], digestSRI: [VC + "digestSRI", VC + "sriString"] }],
  "@status": [["BitstringStatusListEntry"], {
    statusPurpose: [STATUS + "statusPurpose", ""], statusListIndex: [STATUS + "statusListIndex", ""],
    statusListCredential: [STATUS + "statusListCredential", "iri"],
  }],
};
const IRI = /^(?:urn:uuid|did|https?):[^\s\x00-\x20<>"{}|\\^`\x7f\ufeff]+$/u;
const UNSIGNABLE = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\p{Surrogate}/u;
const BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const utf8 = new TextEncoder();

export class Refused extends Error {}

function need(isSo, otherwise) {
  if (!isSo) { throw new Refused(otherwise); }
}

function iri(value) {
  need(typeof value === "string" && IRI.test(value), "an id is not of the known kind");
  return `<${value}>`;
}

function literal(value, kind) {
  if (kind.endsWith("#boolean")) {
    need(typeof value === "boolean", "a value is not true or false");
    return `"${value}"^^<${kind}>`;
  }
  need(typeof value === "string" && !UNSIGNABLE.test(value), "a value is not text");
  const escaped = value.replaceAll("\\", "\\\\").replaceAll("\t", "\\t").replaceAll("\n", "\\n")
    .replaceAll("\r", "\\r").replaceAll('"', '\\"');
  return `"${escaped}"${kind ? `^^<${kind}>` : ""}`;
}

function addNode(node, kind, said, counter) {
  const [types, terms] = NODES[kind];
  need(node && typeof node === "object" && !Array.isArray(node), "a node is no object");
  const given = [node.type ?? []].flat();
  need(new Set(given).size === types.length && given.every((one) => types.includes(one)), "a type is not the known one");
  const name = Object.hasOwn(node, "id") ? iri(node.id) : `_:b${counter.next++}`;
  for (const one of given) { said.add([name, `<${RDF_TYPE}>`, `<${TYPES[one]}${one}>`].join(" ")); }
  for (const [term, value] of Object.entries(node)) {
    if (term === "id" || term === "type") { continue; }
    need(Object.hasOwn(terms, term), "a term is not known");
    const [full, wanted] = terms[term];
    const values = wanted.endsWith("[]") ? [value].flat() : [value];
    need(values.length > 0, "an array is empty");
    for (const one of values) { said.add(`${name} <${full}> ${object(one, wanted.replace("[]", ""), said, counter)}`); }
  }
  return name;
}

function object(value, kind, said, counter) {
  if (kind.startsWith("@")) { return addNode(value, kind, said, counter); }
  return kind === "iri" ? iri(value) : literal(value, kind);
}

/** Compare as code points, as the standard does; JavaScript would compare halves of characters. */
function byCodePoint(one, other) {
  const [a, b] = [utf8.encode(one), utf8.encode(other)];
  for (let place = 0; place < Math.min(a.length, b.length); place += 1) {
    if (a[place] !== b[place]) { return a[place] - b[place]; }
  }
  return a.length - b.length;
}

async function sha(name, bytes) { return new Uint8Array(await crypto.subtle.digest(name, bytes)); }

function hex(bytes) { return [...bytes].map((one) => one.toString(16).padStart(2, "0")).join(""); }

/** Return the sorted N-Quads of a credential without its proof (RDFC-1.0). */
export async function canonicalStatements(document) {
  const { "@context": contexts, ...node } = document;
  need(JSON.stringify(contexts) === JSON.stringify(CONTEXTS), "the contexts are not the known ones");
  const said = new Set();
  addNode(node, "@credential", said, { next: 0 });
  const blank = /^_:b\d+(?= )|(?<= )_:b\d+$/gu; // a literal never begins or ends a statement without its quote
  const names = new Set([...said].flatMap((one) => one.match(blank) ?? []));
  const hashes = new Map();
  for (const name of names) {
    const lines = [...said].filter((one) => one.startsWith(`${name} `) || one.endsWith(` ${name}`))
      .map((one) => `${one.replace(blank, (term) => (term === name ? "_:a" : "_:z"))} .\n`);
    hashes.set(name, hex(await sha("SHA-256", utf8.encode(lines.sort(byCodePoint).join("")))));
  }
  need(new Set(hashes.values()).size === names.size, "two parts are alike");
  const order = [...names].sort((one, other) => (hashes.get(one) < hashes.get(other) ? -1 : 1));
  const lines = [...said].map((one) => `${one.replace(blank, (term) => `_:c14n${order.indexOf(term)}`)} .\n`);
  return lines.sort(byCodePoint).join("");
}

/** Return what is signed: the digest of the proof's own statements and that of the document's. */
export async function hashToSign(document) {
  const { proof, ...unsigned } = document;
  const members = ["created", "cryptosuite", "proofPurpose", "proofValue", "type", "verificationMethod"];
  need(proof && Object.keys(proof).sort().join() === members.join(), "the proof is not of the known form");
  need(proof.type === "DataIntegrityProof" && proof.cryptosuite === "eddsa-rdfc-2022", "the proof is of another kind");
  need(proof.proofPurpose === "assertionMethod", "the proof was made for another purpose");
  const lines = [
    `_:c14n0 <http://purl.org/dc/terms/created> ${literal(proof.created, `${XSD}dateTime`)} .\n`,
    `_:c14n0 <${RDF_TYPE}> <${SECURITY}DataIntegrityProof> .\n`,
    `_:c14n0 <${SECURITY}cryptosuite> "eddsa-rdfc-2022"^^<${SECURITY}cryptosuiteString> .\n`,
    `_:c14n0 <${SECURITY}proofPurpose> <${SECURITY}assertionMethod> .\n`,
    `_:c14n0 <${SECURITY}verificationMethod> ${iri(proof.verificationMethod)} .\n`,
  ];
  const options = await sha("SHA-256", utf8.encode(lines.join("")));
  const content = await sha("SHA-256", utf8.encode(await canonicalStatements(unsigned)));
  return new Uint8Array([...options, ...content]);
}

export function fromBase58(text) {
  let number = 0n;
  for (const one of text) {
    const digit = BASE58.indexOf(one);
    need(digit >= 0 && text.length <= 128, "a text is not base58btc");
    number = number * 58n + BigInt(digit);
  }
  const bytes = [];
  for (; number > 0n; number >>= 8n) { bytes.unshift(Number(number & 255n)); }
  const zeros = text.length - text.replace(/^1+/u, "").length;
  return new Uint8Array([...Array(zeros).fill(0), ...bytes]);
}

function keyOf(multibase) {
  const bytes = fromBase58(String(multibase).slice(1));
  need(String(multibase).startsWith("z") && bytes.length === 34 && bytes[0] === 0xed && bytes[1] === 1, "a key is not Ed25519");
  return bytes.slice(2);
}

async function isSigned(key, signature, bytes) {
  const imported = await crypto.subtle.importKey("raw", key, "Ed25519", false, ["verify"]);
  return crypto.subtle.verify("Ed25519", imported, signature, bytes);
}

async function issuerKey(document, base) {
  const method = document.proof.verificationMethod;
  const [did] = method.split("#");
  need(did === document.issuer.id, "the key belongs to somebody else than the issuer");
  if (did.startsWith("did:key:")) { return keyOf(did.slice(8)); }
  const slug = did.split(":").at(-1);
  const published = await (await fetched(`${base}/issuers/${encodeURIComponent(slug)}/did.json`)).json();
  const found = published.verificationMethod.find((one) => one.id === method);
  need(published.id === did && found && published.assertionMethod.includes(method), "the issuer does not allow this key");
  return keyOf(found.publicKeyMultibase);
}

function fromBase64(text) {
  return Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
}

function joined(...parts) {
  return new Uint8Array(parts.flatMap((one) => [...one]));
}

/** Fold an inclusion proof (RFC 9162 2.1.3.2); exactly the right number of hashes is required. */
export async function isIncluded(entry, index, size, hashes, root) {
  if (!(index >= 0 && index < size)) { return false; }
  let [number, last] = [BigInt(index), BigInt(size) - 1n];
  let found = await sha("SHA-256", joined([0], entry));
  for (const sibling of hashes) {
    if (last === 0n || sibling.length !== 32) { return false; }
    if (number & 1n || number === last) {
      found = await sha("SHA-256", joined([1], sibling, found));
      while (!(number & 1n) && number) { number >>= 1n; last >>= 1n; }
    } else {
      found = await sha("SHA-256", joined([1], found, sibling));
    }
    number >>= 1n; last >>= 1n;
  }
  return last === 0n && hex(found) === hex(root);
}

/** Check a C2SP tlog-proof with the log's key; return what it shows. */
export async function checkLog(proof, vkey, stored) {
  const [head, text, signatures] = proof.split("\n\n");
  const [title, number, ...hashes] = head.split("\n");
  const [origin, size, root] = text.split("\n");
  need(title === "c2sp.org/tlog-proof@v1" && /^index (0|[1-9]\d{0,14})$/u.test(number), "the proof is malformed");
  const [name, id, encoded] = vkey.trim().split(/\+(.*?)\+(.*)/su);
  const key = fromBase64(encoded);
  const line = signatures.split("\n").map((one) => one.split(" ")).find((one) => one[1] === name && one[0] === "\u2014");
  need(line && name === origin, "the checkpoint is not of this log");
  const raw = fromBase64(line[2]);
  need(hex(raw.slice(0, 4)) === id, "the checkpoint is signed by another key");
  need(await isSigned(key.slice(1), raw.slice(4), utf8.encode(`${text}\n`)), "the checkpoint's signature is false");
  const entry = await sha("SHA-256", stored);
  const index = Number(number.slice(6));
  need(await isIncluded(entry, index, Number(size), hashes.map(fromBase64), fromBase64(root)), "the path does not lead to the checkpoint");
  return `entry ${index} of ${size} in ${origin}`;
}

async function fetched(address) {
  const answer = await fetch(address, { cache: "no-store", credentials: "omit" });
  if (!answer.ok) { throw new Error(`${answer.status}`); }
  return answer;
}

async function bytesOf(address) { return new Uint8Array(await (await fetched(address)).arrayBuffer()); }

async function canCheckSignatures() {
  if (!globalThis.crypto?.subtle) { return false; }
  try {
    await crypto.subtle.importKey("raw", new Uint8Array(32).fill(1), "Ed25519", false, ["verify"]);
    return true;
  } catch { return false; }
}

async function pagesAreSigned(document, here) {
  const [resource] = [document.relatedResource].flat();
  const [base, whole] = await Promise.all([bytesOf(`${here}/base.pdf`), bytesOf(`${here}/certificate.pdf`)]);
  const digest = await sha("SHA-384", base);
  need(`sha384-${btoa(String.fromCharCode(...digest))}` === resource.digestSRI, "the pages are not those that were signed");
  need(base.every((one, place) => whole[place] === one), "the certificate does not begin with the signed pages");
  return `SHA-384 of ${base.length.toLocaleString("en")} bytes is the signed one`;
}

/** Check everything; yield [what, true | false | null, detail], in order. */
export async function* check(here, log, base = "") {
  const stored = await bytesOf(`${here}/credential.json`);
  const document = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(stored));
  const canSign = await canCheckSignatures();
  const steps = [
    ["The signature", canSign, async () => {
      const [key, signed] = await Promise.all([issuerKey(document, base), hashToSign(document)]);
      need(await isSigned(key, fromBase58(document.proof.proofValue.slice(1)), signed), "the signature is false");
      return document.proof.verificationMethod.split("#")[0];
    }],
    ["The pages of the PDF", true, () => pagesAreSigned(document, here)],
    ["The public log", canSign, async () => {
      const [proof, vkey] = await Promise.all([fetched(`${here}/proof`), fetched(`${base}${log}/vkey`)]);
      return checkLog(await proof.text(), await vkey.text(), stored);
    }],
  ];
  for (const [what, canBeTold, step] of steps) {
    if (!canBeTold) { yield [what, null, "this browser cannot check Ed25519 signatures"]; continue; }
    try { yield [what, true, await step()]; } catch (error) {
      if (error instanceof Refused) { yield [what, false, error.message]; } else { yield [what, null, "a file could not be fetched"]; }
    }
  }
}

const SIGNS = { true: ["good", "✓", "Yes"], false: ["bad", "✗", "No"], null: ["calm", "?", "Not told"] };

globalThis.customElements?.define("browser-check", class extends HTMLElement {
  connectedCallback() {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Check it in this browser";
    this.list = document.createElement("ul");
    this.list.className = "checks own";
    this.status = document.createElement("p");
    this.status.setAttribute("role", "status");
    this.status.className = "note";
    button.addEventListener("click", async () => { button.disabled = true; await this.run(); button.disabled = false; });
    this.append(button, this.list, this.status);
  }
  async run() {
    this.list.replaceChildren();
    if (!globalThis.crypto?.subtle) {
      this.status.textContent = "This browser offers its cryptography only on a secure (https) page, so nothing was checked here.";
      return;
    }
    const results = [];
    this.status.textContent = "Checking…";
    try {
      for await (const [what, ok, detail] of check(this.dataset.here, this.dataset.log)) {
        results.push(ok);
        this.show(what, ok, detail);
      }
      this.status.textContent = this.summary(results);
    } catch { this.status.textContent = "The files could not be fetched: nothing was checked here."; }
  }
  show(what, ok, detail) {
    const [tone, sign, word] = SIGNS[ok];
    const item = document.createElement("li");
    item.className = `tone-${tone}`;
    const mark = document.createElement("span");
    mark.className = "sign";
    mark.setAttribute("aria-hidden", "true");
    mark.textContent = sign;
    const text = document.createElement("div");
    const strong = document.createElement("strong");
    strong.textContent = `${what}: ${word.toLowerCase()}`;
    const rest = document.createElement("span");
    rest.textContent = detail;
    text.append(strong, rest);
    item.append(mark, text);
    this.list.append(item);
  }
  summary(results) {
    if (results.includes(false)) { return "Your browser does not come to the verdict of this page. Do not rely on it, and tell the issuer."; }
    if (results.includes(null)) { return "Your browser could not check everything, and found nothing wrong in the rest. The verdict above is this site’s."; }
    return "Checked by your own browser, without asking this site for a verdict. Files and keys came from it.";
  }
});
