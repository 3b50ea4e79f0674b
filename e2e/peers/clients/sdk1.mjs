// A client on the TypeScript SDK 1.x; what it is given, does and prints is told in `checks.py`.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// The SDK is installed outside the source tree; E2E_HOME says where.
const require = createRequire(`${process.env.E2E_HOME}/package.json`);
const sdk = (path) => import(pathToFileURL(require.resolve(`@modelcontextprotocol/sdk/${path}`)));
const { Client } = await sdk("client/index.js");
const { StdioClientTransport } = await sdk("client/stdio.js");
const { StreamableHTTPClientTransport } = await sdk("client/streamableHttp.js");
const types = await sdk("types.js");

const CHECK_SECONDS = 60;
const [target, profile] = process.argv.slice(2, 4).map((argument) => JSON.parse(argument));
const say = (facts) => console.log(JSON.stringify(facts));

function equal(found, wanted) {
  const [left, right] = [JSON.stringify(found), JSON.stringify(wanted)];
  if (left !== right) throw new Error(`got ${left}, not ${right}`);
}

// What the event streams opened by GET carried: over HTTP, only the standalone stream is one until a call is resumed.
let standalone = "";

async function listeningFetch(url, init) {
  const response = await fetch(url, init);
  if (init?.method !== "GET" || !response.ok || !response.body) return response;
  const [ours, theirs] = response.body.tee();
  (async () => {
    for await (const text of ours.pipeThrough(new TextDecoderStream())) standalone += text;
  })().catch(() => {}); // It ends with the connection.
  return new Response(theirs, { status: response.status, headers: response.headers });
}

function transport() {
  if (target.url) return new StreamableHTTPClientTransport(new URL(target.url), { fetch: listeningFetch });
  const [command, ...args] = target.command;
  return new StdioClientTransport({ command, args, env: process.env });
}

// Notifications as they arrive. The SDK drops a progress that is read together with the result that follows it.
let onNotification = () => {};

function tapped(transport) {
  const start = transport.start.bind(transport);
  transport.start = async () => {
    const deliver = transport.onmessage;
    transport.onmessage = (message, extra) => {
      if (message.method && message.id === undefined) onNotification(message);
      deliver(message, extra);
    };
    await start();
  };
  return transport;
}

const capabilities = { elicitation: {}, ...(profile.roots && { roots: {} }) };
const client = new Client({ name: "peer-sdk1", version: "1.0.0" }, { capabilities });
client.setRequestHandler(types.ElicitRequestSchema, () => ({ action: "accept", content: profile.answer }));
if (profile.roots) {
  client.setRequestHandler(types.ListRootsRequestSchema, () => ({ roots: profile.roots.map((uri) => ({ uri })) }));
}
const heard = new Map();
client.fallbackNotificationHandler = async ({ method }) => heard.get(method)?.();
const changed = (method) => new Promise((resolve) => heard.set(method, resolve));

async function call(tool, args, options) {
  const result = await client.callTool({ name: tool, arguments: args }, undefined, options);
  const text = result.content.map((block) => block.text ?? "").join("");
  if (result.isError) throw new Error(`${tool}: ${text}`);
  return text;
}

// Repeats a call until its text contains what it must; the check's time bounds it.
async function until({ tool, arguments: args, text }) {
  while (!(await call(tool, args)).includes(text)) await new Promise((resolve) => setTimeout(resolve, 200));
}

async function progress({ tool, arguments: args, steps, text }, onStep = () => {}) {
  const seen = [];
  onNotification = ({ method, params }) => {
    if (method !== "notifications/progress") return;
    seen.push([params.progress, params.total]);
    onStep(params.progress);
  };
  equal(await call(tool, args, { onprogress: () => {} }), text);
  equal(seen, Array.from({ length: steps }, (_, step) => [step + 1, steps]));
}

const checks = {
  async version(wanted) {
    // Over stdio the SDK keeps the negotiated version to itself.
    if (target.url) equal(client.transport.protocolVersion, wanted);
  },
  async list(wanted) {
    const { tools } = await client.listTools();
    const names = tools.map((tool) => tool.name);
    equal(wanted.filter((name) => !names.includes(name)), []);
  },
  async call(steps) {
    for (const { tool, arguments: args, text } of steps) equal(await call(tool, args), text);
  },
  progress,
  async elicitation({ tool, text }) {
    const found = await call(tool, {});
    if (!found.includes(text)) throw new Error(`${JSON.stringify(text)} is not in ${JSON.stringify(found)}`);
  },
  async cancel({ tool, arguments: args, then }) {
    const controller = new AbortController();
    const options = { signal: controller.signal, onprogress: () => controller.abort("enough") };
    const outcome = await call(tool, args, options).then(
      (text) => text,
      () => "cancelled",
    );
    equal([outcome, controller.signal.aborted], ["cancelled", true]);
    await until(then); // It may overtake the cancel.
  },
  async list_changed({ tool, arguments: args, method }) {
    const change = changed(method);
    await call(tool, args);
    await change;
    if (target.url && profile.standalone && !standalone.includes(method)) {
      throw new Error("it came, but not by the standalone stream");
    }
  },
  // The server asks for our roots by itself, outside any call: it takes a moment.
  roots: until,
  async resumption(wanted) {
    // Each step is said aloud, so that whoever holds the connection knows when to cut it.
    await progress(wanted, (step) => say({ step }));
  },
};

async function check(name, wanted) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done after ${CHECK_SECONDS} s`)), CHECK_SECONDS * 1000);
  });
  try {
    await Promise.race([checks[name](wanted), late]);
    say({ check: name, passed: true });
  } catch (error) {
    say({ check: name, passed: false, detail: String(error) });
  } finally {
    clearTimeout(timer);
  }
}

let step = "connect";
try {
  await client.connect(tapped(transport()));
  for (const [name, wanted] of Object.entries(profile.checks)) await check(name, wanted);
  step = "leave";
  await client.transport.terminateSession?.();
  await client.close();
  say({ check: "leave", passed: true });
} catch (error) {
  say({ check: step, passed: false, detail: String(error) });
}
process.exit(0);
