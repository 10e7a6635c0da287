// Holds docs/examples/beat.mjs against tests/vectors: node vectors.mjs BEAT_MJS DIR. Prints how much was held.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [, , example, folder] = process.argv;
const { siphash, encodeBeat, decodeAck, signSession } = await import(pathToFileURL(resolve(example)));
const read = (name) => JSON.parse(readFileSync(join(folder, `${name}.json`), "utf8"));
const bytes = (hex) => Buffer.from(hex, "hex");
const word = (hex) => BigInt(`0x${hex}`);
const held = { siphash: 0, beats: 0, acks: 0, rejects: 0, signatures: 0 };

const { key, tags } = read("siphash");
tags.forEach((tag, length) => {
  assert.equal(siphash(bytes(key), Buffer.from([...Array(length).keys()])).toString("hex"), tag);
  held.siphash++;
});
for (const one of read("beats")) {
  const fields = { ...one, seq: word(one.seq), plane0: word(one.plane0), plane1: word(one.plane1) };
  assert.equal(encodeBeat(bytes(one.key), fields).toString("hex"), one.frame, one.name);
  held.beats++;
}
for (const one of read("acks")) {
  const ack = decodeAck(bytes(one.frame), { ...one, key: bytes(one.key) });
  assert.deepEqual(
    { ...ack },
    { code: one.code, seq: word(one.seq), serverMs: Number(word(one.server_ms)), nextMs: one.next_ms, ttlMs: one.ttl_ms },
    one.name,
  );
  held.acks++;
}
for (const one of read("rejects").filter((each) => each.kind === "ack")) {
  assert.equal(decodeAck(bytes(one.frame), { ...one, key: bytes(one.key) }), null, one.name);
  held.rejects++;
}
const { private_key: seed, session } = read("signatures");
assert.equal(signSession(seed, session), session.signature);
held.signatures++;
console.log(JSON.stringify(held));
