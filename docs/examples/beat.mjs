// A beat sender for NodePulse in Node.js (18 or newer) and nothing else, written from docs/managers.md.
//
//   API_KEY=... node beat.mjs register WEB PROJECT KIND > node.json   a new node of one workload
//   node beat.mjs beat node.json                                      beats until SIGTERM, then STOPPING
//
// What a manager has besides is left out: backfill, desired state; and every workload is said to be healthy.
import { createPrivateKey, generateKeyPairSync, randomBytes, sign, timingSafeEqual } from "node:crypto";
import { createSocket } from "node:dgram";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const MASK = (1n << 64n) - 1n;
const [OK, EARLY, STALE, CLOCK, RESYNC, REKEY, MOVED, BUSY, STANDBY] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
const CREDITED = new Set([OK, EARLY, RESYNC, REKEY, STANDBY]);
const NAMES = ["OK", "EARLY", "STALE", "CLOCK", "RESYNC", "REKEY", "MOVED", "BUSY", "STANDBY"];
const STOPPING = 2;

export function siphash(key, data) {
  const rotl = (x, n) => ((x << n) | (x >> (64n - n))) & MASK;
  const [k0, k1] = [key.readBigUInt64LE(0), key.readBigUInt64LE(8)];
  let [a, b] = [k0 ^ 0x736f6d6570736575n, k1 ^ 0x646f72616e646f6dn ^ 0xeen];
  let [c, d] = [k0 ^ 0x6c7967656e657261n, k1 ^ 0x7465646279746573n];
  const rounds = (n) => {
    for (; n > 0; n--) {
      a = (a + b) & MASK; b = rotl(b, 13n) ^ a; a = rotl(a, 32n);
      c = (c + d) & MASK; d = rotl(d, 16n) ^ c;
      a = (a + d) & MASK; d = rotl(d, 21n) ^ a;
      c = (c + b) & MASK; b = rotl(b, 17n) ^ c; c = rotl(c, 32n);
    }
  };
  const padded = Buffer.alloc((data.length >> 3) * 8 + 8);
  data.copy(padded);
  padded[padded.length - 1] = data.length & 0xff;
  for (let at = 0; at < padded.length; at += 8) {
    const word = padded.readBigUInt64LE(at);
    d ^= word; rounds(2); a ^= word;
  }
  const tag = Buffer.alloc(16);
  c ^= 0xeen; rounds(4); tag.writeBigUInt64LE(a ^ b ^ c ^ d, 0);
  b ^= 0xddn; rounds(4); tag.writeBigUInt64LE(a ^ b ^ c ^ d, 8);
  return tag;
}

export function encodeBeat(key, { flags, generation, row, seq, plane0, plane1 }) {
  const frame = Buffer.alloc(48);
  frame[0] = 0x11; frame[1] = flags;
  frame.writeUInt16BE(generation, 2); frame.writeUInt32BE(row, 4);
  frame.writeBigUInt64BE(seq, 8); frame.writeBigUInt64BE(plane0, 16); frame.writeBigUInt64BE(plane1, 24);
  siphash(key, frame.subarray(0, 32)).copy(frame, 32);
  return frame;
}

/** The ACK in these bytes, or null when they must not be believed. */
export function decodeAck(frame, { key, row, generation }) {
  if (frame.length !== 48 || frame[0] !== 0x12 || frame[1] > STANDBY) return null;
  if (frame.readUInt32BE(4) !== row || frame.readUInt16BE(2) !== generation) return null;
  if (!timingSafeEqual(siphash(key, frame.subarray(0, 32)), frame.subarray(32))) return null;
  return { code: frame[1], seq: frame.readBigUInt64BE(8), serverMs: Number(frame.readBigUInt64BE(16)),
    nextMs: frame.readUInt32BE(24), ttlMs: frame.readUInt32BE(28) };
}

export function signSession(seed, { node_id, sent_at, nonce, manager_version }) {
  const der = Buffer.from(`302e020100300506032b657004220420${seed}`, "hex");
  const lines = ["nodepulse-session-v1", node_id, sent_at, nonce, manager_version];
  return sign(null, Buffer.from(lines.join("\n")), createPrivateKey({ format: "der", type: "pkcs8", key: der }))
    .toString("hex");
}

const sleep = (ms) => new Promise((done) => setTimeout(done, Math.max(0, ms)));
const log = (what) => console.log(JSON.stringify(what));

class Beater {
  constructor(config) {
    Object.assign(this, { config, offset: 0, keys: new Map(), mine: new Set(), path: "udp", heardMs: Date.now(),
      stopping: false, opening: null, resyncMs: 0 });
  }

  /** Open a session after a random part of `withinMs`; back off until one is given. */
  async open(withinMs) {
    await sleep(Math.random() * withinMs);
    for (let failures = 0; !this.stopping; failures++) {
      let waitMs = Math.min(1000 * 2 ** failures, 300_000) * (0.5 + Math.random() / 2);
      try {
        const sentMs = Date.now();
        const body = { node_id: this.config.node_id, sent_at: new Date(sentMs + this.offset).toISOString(),
          nonce: randomBytes(16).toString("hex"), manager_version: "beat.mjs/1" };
        body.signature = signSession(this.config.private_key, body);
        const reply = await fetch(`${this.config.web}/v1/sessions`, { method: "POST", body: JSON.stringify(body),
          headers: { "content-type": "application/json" }, signal: AbortSignal.timeout(10_000) });
        const answer = await reply.json();
        if (reply.status === 201) return this.opened(answer, (sentMs + Date.now()) / 2);
        log({ event: "refused", status: reply.status, code: answer.code });
        if (answer.code === "clock_skew") this.offset = answer.server_time - Date.now();
        if (["clock_skew", "nonce_seen"].includes(answer.code) && failures === 0) waitMs = 0;
        waitMs = Math.max(waitMs, 1000 * (reply.headers.get("retry-after") ?? 0));
      } catch (error) {
        log({ event: "unreachable", why: String(error.cause ?? error) });
      }
      await sleep(waitMs);
    }
  }
  opened({ sessions: [session], server_ms }, atMs) {
    this.offset = server_ms - atMs;
    this.session = { ...session, key: Buffer.from(session.key, "hex") };
    this.keys = new Map([...this.keys].slice(-1)).set(session.generation, this.session.key); // and the one before
    Object.assign(this, { lastSeq: 0n, floor: 0n, stale: 0, intervalMs: session.interval_ms });
    log({ event: "session", generation: session.generation, row: session.row });
  }
  /** Have a new session opened beside the beats, which go on with the old one. */
  reopen() {
    this.opening ??= this.open(this.intervalMs).finally(() => { this.opening = null; });
  }

  /** Send a new frame by the present way. */
  send(flags) {
    const { key, generation, row, slots, endpoints } = this.session;
    const estimate = BigInt(Math.round(Date.now() + this.offset)) << 16n;
    const seq = [this.lastSeq + 1n, estimate, this.floor + 1n].reduce((a, b) => (a > b ? a : b));
    this.mine.add((this.floor = seq));
    const plane0 = flags & STOPPING ? 0n : slots.reduce((all, one) => all | (1n << BigInt(one.slot)), 0n);
    const frame = encodeBeat(key, { flags, generation, row, seq, plane0, plane1: 0n });
    if (this.path === "http") return void this.post(`${endpoints.http}/v1/beats`, frame);
    const [, host, port] = endpoints.udp.match(/^\[?(.*?)\]?:(\d+)$/);
    this.socket ??= this.listen(host.includes(":") ? "udp6" : "udp4");
    this.socket.send(frame, Number(port), host, (error) => error && log({ event: "unsent", why: String(error) }));
  }
  listen(kind) {
    const socket = createSocket(kind).on("message", (data) => this.receive(data));
    return socket.on("error", () => { socket.close(); this.socket = undefined; }); // the next frame opens another
  }
  async post(url, body) {
    try {
      const reply = await fetch(url, { method: "POST", body, signal: AbortSignal.timeout(10_000),
        headers: { "content-type": "application/octet-stream" } });
      const data = Buffer.from(await reply.arrayBuffer());
      const zero = data.length === 48 && data.every((one) => one === 0);
      if (zero || [401, 404].includes(reply.status)) this.reopen();
      else if (reply.status === 200) this.receive(data);
    } catch (error) {
      log({ event: "unanswered", why: String(error.cause ?? error) });
    }
  }
  receive(data) {
    const generation = data.length === 48 ? data.readUInt16BE(2) : -1;
    const key = this.keys.get(generation);
    const ack = key ? decodeAck(data, { key, row: this.session.row, generation }) : null;
    if (ack && this.mine.delete(ack.seq)) this.answer?.(ack);
  }

  /** One beat of up to three tries; how many ms to wait for the next one, and whether it was credited. */
  async beat(flags = 0) {
    const endMs = Date.now() + this.intervalMs;
    this.mine.clear();
    for (let tries = 1, corrected = false; tries <= 3; tries++) {
      const pauseMs = [Math.min(1000, this.intervalMs / 3), this.session.ttl_ms / 4, Infinity][tries - 1];
      this.send(flags);
      const answered = new Promise((done) => { this.answer = done; });
      const waitMs = Math.min(pauseMs * (1 + Math.random() / 5), endMs - Date.now());
      const ack = await Promise.race([answered, sleep(waitMs)]);
      if (!ack && Date.now() >= endMs) break;
      if (!ack) continue;
      this.judge(ack);
      if (CREDITED.has(ack.code)) return { waitMs: Math.max(ack.nextMs, 500), credited: true };
      if (ack.code === BUSY) return { waitMs: ack.nextMs, credited: false };
      if (ack.code !== CLOCK || corrected) break;
      [corrected, tries] = [true, 0];
    }
    this.chooseWay();
    return { waitMs: endMs - Date.now(), credited: false };
  }
  judge({ code, seq, serverMs, nextMs }) {
    log({ event: "ack", code: NAMES[code], via: this.path, next_ms: nextMs });
    this.heardMs = Date.now();
    this.offset = serverMs - this.heardMs;
    this.intervalMs = Math.max(this.session.interval_ms, nextMs);
    this.stale = code === STALE ? this.stale + 1 : 0;
    if (CREDITED.has(code) && seq > this.lastSeq) this.lastSeq = seq;
    if (code === CLOCK) this.floor = 0n;
    if (code === RESYNC && this.heardMs >= this.resyncMs) {
      this.resyncMs = this.heardMs + 60_000;
      this.reopen();
    }
    const expired = Date.parse(this.session.expires_at) <= serverMs;
    if (code === REKEY || code === MOVED || this.stale >= 3 || expired) this.reopen();
  }
  chooseWay() {
    if (this.path !== "udp" || Date.now() - this.heardMs < 3 * this.intervalMs) return;
    this.path = "http";
    log({ event: "path", path: "http" });
    const probe = () => { this.path = "udp"; this.heardMs = Date.now() - 2 * this.intervalMs; }; // for one beat
    setTimeout(probe, (10 + 50 * Math.random()) * 60_000).unref();
  }

  async run() {
    process.on("SIGTERM", () => { this.stopping = true; this.hurry?.(); });
    await this.open(0);
    if (this.session) await this.pause(Math.random() * this.intervalMs);
    while (!this.stopping) await this.pause((await this.beat()).waitMs);
    for (const untilMs = Date.now() + 5000; this.session && Date.now() < untilMs; ) {
      const { credited, waitMs } = await this.beat(STOPPING);
      if (credited) { log({ event: "stopped" }); break; }
      await sleep(waitMs);
    }
    process.exit(0);
  }
  pause(ms) {
    return Promise.race([sleep(this.stopping ? 0 : ms), new Promise((done) => { this.hurry = done; })]);
  }
}

async function register(web, project, kind) {
  const { d, x } = generateKeyPairSync("ed25519").privateKey.export({ format: "jwk" });
  const hex = (text) => Buffer.from(text, "base64url").toString("hex");
  const headers = { authorization: `Bearer ${process.env.API_KEY}`, "content-type": "application/json",
    "idempotency-key": randomBytes(16).toString("hex") };
  const body = JSON.stringify({ project, name: `example-${randomBytes(4).toString("hex")}`, public_key: hex(x),
    interval_ms: 1000, workloads: [{ kind, name: "main" }] });
  const reply = await fetch(`${web}/v1/nodes`, { method: "POST", body, headers });
  const made = await reply.json();
  if (reply.status !== 201) throw new Error(`${reply.status} ${made.code} ${made.detail}`);
  log({ web, node_id: made.node_id, workload_id: made.workloads[0].workload_id, private_key: hex(d) });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [what, ...words] = process.argv.slice(2);
  if (what === "register") await register(...words);
  else if (what === "beat") await new Beater(JSON.parse(readFileSync(words[0], "utf8"))).run();
  else { console.error("beat.mjs register WEB PROJECT KIND | beat FILE"); process.exit(2); }
}
