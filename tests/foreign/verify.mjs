// SPDX-License-Identifier: Apache-2.0
// Runs the pinned verifiers of others over credentials that a test hands in, without any network.
//
//   node verify.mjs < question.json > answer.json
//
// Question: {contexts: {url: object}, cases: [{name, credential, documents: {url: object}}]}
// Answer: {cases: [{name, core, bazaar, asked}]}; `asked` lists every URL that a verifier wanted, in order.
//
// globalThis.fetch is replaced before a verifier is imported (some keep a reference to it): whatever is not in
// the case's documents is a 404, so a test can also prove which addresses a stranger's software calls.

const question = JSON.parse(await readAll(process.stdin));
let documents = {};
let asked = [];

globalThis.fetch = async (request) => {
  const url = typeof request === 'string' ? request : request.url ?? String(request);
  asked.push(url);
  const found = documents[url];
  return found === undefined
    ? new Response('not found', {status: 404})
    : new Response(JSON.stringify(found), {status: 200, headers: {'content-type': 'application/json'}});
};

// Verifiers chat on the console; standard output is ours alone.
console.log = console.error;

const core = await import('@digitalcredentials/verifier-core');
const {DataIntegrityProof} = await import('@digitalbazaar/data-integrity');
const {cryptosuite} = await import('@digitalbazaar/eddsa-rdfc-2022-cryptosuite');
const vc = await import('@digitalbazaar/vc');
const {checkStatus} = await import('@digitalbazaar/vc-bitstring-status-list');
const didKey = await import('@digitalbazaar/did-method-key');
const Ed25519Multikey = await import('@digitalbazaar/ed25519-multikey');

const didKeyDriver = didKey.driver();
didKeyDriver.use({multibaseMultikeyHeader: 'z6Mk', fromMultibase: Ed25519Multikey.from});

const answers = [];
for(const item of question.cases) {
  documents = item.documents;
  asked = [];
  const coreAnswer = await askCore(structuredClone(item.credential));
  const bazaarAnswer = await askBazaar(structuredClone(item.credential));
  answers.push({name: item.name, core: coreAnswer, bazaar: bazaarAnswer, asked});
}
process.stdout.write(JSON.stringify({cases: answers}));

async function askCore(credential) {
  const result = await core.verifyCredential({credential, knownDIDRegistries: []});
  const log = {};
  for(const step of result.log ?? []) {
    log[step.id] = step.error ? step.error.name : step.valid;
  }
  const schemas = (result.additionalInformation ?? []).flatMap(entry => entry.results ?? []);
  return {
    errors: (result.errors ?? []).map(error => error.name),
    log,
    schema: schemas.length > 0 && schemas.every(entry => entry.result?.valid === true),
    schemaErrors: schemas.flatMap(entry => entry.result?.errors ?? []).map(error => error.message)
  };
}

async function askBazaar(credential) {
  const suite = new DataIntegrityProof({cryptosuite});
  const result = await vc.verifyCredential({credential, suite, documentLoader: load, checkStatus});
  const statuses = result.statusResult?.results ?? [];
  return {
    verified: result.verified,
    // A revoked credential is "verified: true" here: the bit has to be read.
    status: statuses.map(entry => entry.status),
    statusVerified: result.statusResult?.verified ?? null,
    error: describe(result.error ?? result.statusResult?.error)
  };
}

async function load(url) {
  if(url in question.contexts) {
    return {contextUrl: null, documentUrl: url, document: question.contexts[url]};
  }
  if(url.startsWith('did:key:')) {
    // The driver takes the whole URL, fragment included.
    return {contextUrl: null, documentUrl: url, document: await didKeyDriver.get({url})};
  }
  if(url.startsWith('did:web:')) {
    return {contextUrl: null, documentUrl: url, document: dereference(url)};
  }
  if(url in documents) {
    return {contextUrl: null, documentUrl: url, document: documents[url]};
  }
  throw new Error(`NotFoundError: ${url}`);
}

function dereference(url) {
  const [did, fragment] = url.split('#');
  const [host, ...path] = did.slice('did:web:'.length).split(':');
  const didDocument = documents[`https://${decodeURIComponent(host)}/${path.join('/')}/did.json`];
  if(!didDocument) {
    throw new Error(`NotFoundError: ${did}`);
  }
  if(!fragment) {
    return didDocument;
  }
  const method = didDocument.verificationMethod.find(candidate => candidate.id === url);
  if(!method) {
    throw new Error(`NotFoundError: ${url}`);
  }
  return {'@context': 'https://w3id.org/security/multikey/v1', ...method};
}

function describe(error) {
  if(!error) {
    return null;
  }
  const causes = (error.errors ?? []).map(cause => cause.message);
  return [error.message, ...causes].join(' | ').slice(0, 500);
}

async function readAll(stream) {
  const chunks = [];
  for await (const chunk of stream) {
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}
