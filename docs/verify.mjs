// Checks proofs and receipts (docs/proofs.md) with nothing but Node.js. Exit: 0 all valid, 1 one is not, 2 unreadable.
// node verify.mjs [--root=HEX] [--statement=FILE] [--key=HEX] FILE...
import { createHash, createPublicKey, verify } from "node:crypto"
import { readFileSync } from "node:fs"
const need = (holds, otherwise) => { if (!holds) throw new Error(otherwise) }
const sha = (...parts) => createHash("sha256").update(Buffer.concat(parts.map(part => Buffer.from(part)))).digest()
const fields = (object, names) => need(object && Object.keys(object).sort().join() == names, "its fields must be " + names)
const sum = numbers => numbers.reduce((a, b) => { need(Number.isInteger(b) && b >= 0, "no number"); return a + b }, 0)
const startOf = day => { const at = new Date(day + "T00:00Z"); need(at.toJSON().slice(0, 10) === day, "no day"); return +at }
const hex = (text, bytes = text.length / 2) => { // lower case, whole bytes
  need(/^[0-9a-f]*$/.test(text) && text.length == 2 * bytes, "no hex of its length"); return Buffer.from(text, "hex") }
const read = text => { // what was hashed or signed: JSON in its one form
  const it = JSON.parse(text); need(JSON.stringify(it) === text && it.v === 1, "a text is not in its form"); return it }
function climb(content, { place, path, root }, leaves) { // place and number of leaves say how the path must be
  let hash = sha([0], content), steps = [...path]
  need(Number.isInteger(place) && place >= 0 && place < leaves, "the place is outside of the tree")
  for (; leaves > 1; place = Math.floor(place / 2), leaves = Math.ceil(leaves / 2)) {
    if (place % 2 == 0 && place + 1 == leaves) continue // the odd last one is carried up
    const step = steps.shift(), side = place % 2 ? "left" : "right", sibling = hex(step?.hash, 32)
    fields(step, "hash,side"); need(step.side === side, "a sibling is on the wrong side")
    hash = side == "left" ? sha([1], sibling, hash) : sha([1], hash, sibling) }
  need(steps.length == 0 && hash.equals(hex(root, 32)), "the path does not lead to the root") }
function addsUp({ source, from_ms, to_ms, ms, paid_ms, held }, start) { // one workload's day
  need(start <= from_ms && from_ms <= to_ms && to_ms <= start + 864e5, "the window is not within the day")
  need(Object.keys(ms).length == 12 && sum(Object.values(ms)) === to_ms - from_ms, "the kinds do not sum to the window")
  need(paid_ms >= 0 && paid_ms <= ms.up + ms.maintenance + ms.claimed_up, "more is paid than was of a paid kind")
  need(held.every((h, i) => h.from_ms >= (i ? held[i - 1].to_ms : from_ms) && h.to_ms <= to_ms && h.paid_ms <= h.to_ms
    - h.from_ms) && (sum(held.map(h => h.paid_ms)) <= paid_ms || source != "native"), "the owners' times exceed the window's") }
function proof(it) {
  fields(it, "hour,path,place,root,row,statement,version")
  const row = read(it.row), said = read(it.statement), start = startOf(row.day), h = it.hour
  need(it.version === 1 && said.root === it.root && said.hours.length == 24, "another version or root is stated")
  for (const name of ["project", "day", "revision"]) need(row[name] === said[name], `another ${name} is stated`)
  addsUp(row, start); climb("nodepulse.day.v1\n" + it.row, it, said.rows); if (h === null) return [it.root]
  fields(h, "content,hour,index,path,place,root"); need(h.root === said.hours[h.hour] && Number.isInteger(h.hour + h.index), "another root of the hour")
  const content = hex(h.content), from = start + h.hour * 36e5, at = 24 + 64 * h.index, id = text => text.replaceAll("-", "")
  climb(Buffer.concat([Buffer.from("nodepulse.hour.v1\n"), content]), h, said.nodes)
  need(h.content.slice(0, 48) === from.toString(16).padStart(16, "0") + id(row.node)
    && h.content.slice(2 * at, 2 * at + 32) === id(row.workload), "it is of another hour, node or workload")
  const most = Object.values(row.ms), ms = most.map((_, kind) => content.readUInt32BE(at + 16 + 4 * kind))
  need(ms.every((each, kind) => each <= most[kind]), "the hour has more of a kind than the day")
  const length = Math.max(0, Math.min(row.to_ms, from + 36e5) - Math.max(row.from_ms, from)), silent = row.source != "native" && !sum(ms)
  need(content.length % 64 == 24 && (sum(ms) === length || silent), "the hour's sum is off"); return [it.root, h.root] }
function receipt(it) {
  fields(it, "key_id,public_key,signature,statement,version")
  const key = { kty: "OKP", crv: "Ed25519", x: hex(it.public_key, 32).toString("base64url") }, said = read(it.statement)
  need(verify(null, Buffer.from("nodepulse.receipt.v1\n" + it.statement), createPublicKey({ key, format: "jwk" }),
    hex(it.signature, 64)) && it.version === 1 && said.key === it.key_id, "it is not signed with this key")
  said.workloads.forEach(each => addsUp(each, startOf(said.day)))
  need(said.paid_ms === sum(said.workloads.map(each => each.paid_ms)), "the paid times do not add up"); return [said.root] }
const pin = (name, found) => { let known = process.argv.filter(a => a.startsWith(name)).map(a => a.slice(name.length))
  if (name == "--statement=") known = known.flatMap(file => readFileSync(file, "utf8").split("\n")) // one a line
  need(!known.length || found.every(each => known.includes(each)), "not as given by " + name) }
for (const file of process.argv.slice(2).filter(text => !text.startsWith("--"))) { let code = 2
  try { const it = JSON.parse(readFileSync(file)), isProof = "row" in it; code = 1
    pin("--root=", isProof ? proof(it) : receipt(it)); pin(isProof ? "--statement=" : "--key=", [isProof ? it.statement : it.public_key])
    console.log(`${file}: valid, if this is what was published: ${it.statement}`)
  } catch (error) { process.exitCode = Math.max(process.exitCode ?? 0, code)
    console.log(`${file}: not ${code == 1 ? "valid" : "readable"}: ${error.message}`) } }
