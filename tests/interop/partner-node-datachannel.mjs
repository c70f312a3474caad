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

async function offer ({ name }) {
  const connection = new PeerConnection(name, { iceServers: [], disableAutoNegotiation: true })
  connections.set(name, connection)
  const gathered = new Promise(resolve => connection.onGatheringStateChange(state => state === 'complete' && resolve()))
  connection.onDataChannel(channel => channel.onMessage(message => channel.sendMessageBinary(message)))
  connection.first = connection.createDataChannel('', { negotiated: true, id: 0 })
  connection.opened = new Promise(resolve => connection.first.onOpen(resolve))
  connection.setLocalDescription('offer')
  await gathered
  return { sdp: connection.localDescription().sdp }
}

async function answer ({ name, sdp }) {
  const connection = connections.get(name)
  connection.setRemoteDescription(sdp, 'answer')
  await connection.opened
  return {}
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

const does = { offer, answer, echo, close }
for await (const line of createInterface({ input: process.stdin })) {
  const { id, op, ...words } = JSON.parse(line)
  does[op](words)
    .catch(error => ({ error: String(error?.stack ?? error) }))
    .then(found => process.stdout.write(`${JSON.stringify({ id, ...found })}\n`))
}
// The library keeps a thread that would hold the process open.
process.exit(0)
