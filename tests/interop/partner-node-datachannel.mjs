/**
 * node-datachannel (libdatachannel, usrsctp) as a partner of the tests; the commands are those of `partner.py`.
 */
import { createHash, randomBytes } from 'node:crypto'
import { createInterface } from 'node:readline'
import { PeerConnection } from 'node-datachannel'

const AHEAD_BYTES = 1 << 20
const connections = new Map()

const digest = (messages, ordered) => {
  const hash = createHash('sha256')
  for (const message of ordered ? messages : [...messages].sort(Buffer.compare)) hash.update(message)
  return hash.digest('hex')
}

function make (name) {
  const connection = new PeerConnection(name, { iceServers: [], disableAutoNegotiation: true })
  connections.set(name, connection)
  connection.gathered = new Promise(resolve => connection.onGatheringStateChange(state => state === 'complete' && resolve()))
  connection.onDataChannel(channel => channel.onMessage(message => channel.sendMessageBinary(message)))
  const first = connection.first = { channel: connection.createDataChannel('', { negotiated: true, id: 0 }), count: 0, bytes: 0, wanted: 0 }
  connection.opened = new Promise(resolve => first.channel.onOpen(resolve))
  first.channel.setBufferedAmountLowThreshold(AHEAD_BYTES / 2)
  first.channel.onBufferedAmountLow(() => first.low?.())
  first.channel.onMessage(data => {
    if (first.mirrors) first.channel.sendMessageBinary(data)
    first.count++
    first.bytes += data.byteLength
    if (first.count >= first.wanted) first.changed?.()
  })
  first.take = async count => {
    first.wanted = first.count + count
    if (first.count < first.wanted) await new Promise(resolve => { first.changed = resolve })
  }
  return connection
}

async function offer ({ name }) {
  const connection = make(name)
  connection.setLocalDescription('offer')
  await connection.gathered
  return { sdp: connection.localDescription().sdp }
}

async function accept ({ name, sdp }) {
  const connection = make(name)
  connection.setRemoteDescription(sdp, 'offer')
  connection.setLocalDescription('answer')
  await connection.gathered
  return { sdp: connection.localDescription().sdp }
}

async function answer ({ name, sdp }) {
  const connection = connections.get(name)
  connection.setRemoteDescription(sdp, 'answer')
  await connection.opened
  return {}
}

async function pump ({ name, size, count = Infinity }) {
  const connection = connections.get(name)
  const first = connection.first
  await connection.opened
  first.pumping = true
  const data = Buffer.alloc(size)
  for (let sent = 0; sent < count && first.pumping; sent++) {
    if (first.channel.bufferedAmount() > AHEAD_BYTES) await new Promise(resolve => { first.low = resolve })
    first.channel.sendMessageBinary(data)
  }
  return {}
}

async function stop ({ name }) {
  connections.get(name).first.pumping = false
  return {}
}

async function take ({ name, count }) {
  const first = connections.get(name).first
  const before = first.bytes
  await first.take(count)
  return { bytes: first.bytes - before }
}

async function taken ({ name }) {
  return { bytes: connections.get(name).first.bytes }
}

async function mirror ({ name }) {
  connections.get(name).first.mirrors = true
  return {}
}

async function round_trips ({ name, count }) {
  const first = connections.get(name).first
  const seconds = []
  for (let i = 0; i < count; i++) {
    const begin = performance.now()
    const back = first.take(1)
    first.channel.sendMessageBinary(Buffer.alloc(100))
    await back
    seconds.push((performance.now() - begin) / 1000)
  }
  return { seconds }
}

async function cpu () {
  const { user, system } = process.cpuUsage()
  return { seconds: (user + system) / 1e6 }
}

async function echoOnce (connection, [count, size, ordered]) {
  const channel = connection.createDataChannel('', { unordered: !ordered })
  const sent = []
  const back = []
  const closed = new Promise(resolve => channel.onClosed(resolve))
  const complete = new Promise(resolve => channel.onMessage(data => {
    back.push(Buffer.from(data))
    if (back.length === count) resolve()
  }))
  await new Promise(resolve => channel.onOpen(resolve))
  const id = channel.getId()
  let low
  channel.setBufferedAmountLowThreshold(AHEAD_BYTES / 4)
  channel.onBufferedAmountLow(() => low?.())
  for (let i = 0; i < count; i++) {
    if (channel.bufferedAmount() > AHEAD_BYTES) await new Promise(resolve => { low = resolve })
    const data = randomBytes(size)
    sent.push(data)
    channel.sendMessageBinary(data)
  }
  await complete
  channel.close()
  await closed
  return { id, bytes: back.reduce((sum, each) => sum + each.length, 0), sent: digest(sent, ordered), back: digest(back, ordered) }
}

async function echo ({ name, phases }) {
  const report = []
  for (const phase of phases) {
    report.push(await Promise.all(phase.map(channel => echoOnce(connections.get(name), channel))))
  }
  return { report }
}

async function close ({ name }) {
  connections.get(name).close()
  connections.delete(name)
  return {}
}

const does = { offer, accept, answer, echo, pump, stop, take, taken, mirror, round_trips, cpu, close }
for await (const line of createInterface({ input: process.stdin })) {
  const { id, op, ...words } = JSON.parse(line)
  const begin = performance.now()
  does[op](words)
    .catch(error => ({ error: String(error?.stack ?? error) }))
    .then(found => process.stdout.write(`${JSON.stringify({ id, took: (performance.now() - begin) / 1000, ...found })}\n`))
}
// The library keeps a thread that would hold the process open.
process.exit(0)
