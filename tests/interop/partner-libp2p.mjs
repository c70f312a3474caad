/**
 * js-libp2p as a partner of the tests, either way: `node partner-libp2p.mjs`.
 *
 * Reads one JSON object a line on stdin and answers each with one on stdout, both with the same `id`:
 * `{op: "listen"}` gives `{address}`; `{op: "dial", address, streams: [[count, size], …]}` opens a stream for each pair
 * at once, sends `count` writes of `size` random bytes, takes back what the other side echoes, and gives, for each,
 * `{bytes, sent, back}` with the SHA-256 of both ways. Whatever opens an echo stream to it gets its bytes back.
 */
// js-libp2p uses Promise.withResolvers, which Node.js has from 22 on.
Promise.withResolvers ??= function () { let r; const promise = new this((...both) => { r = both }); return { promise, resolve: r[0], reject: r[1] } }

const { createHash, randomBytes } = await import('node:crypto')
const { createInterface } = await import('node:readline')
const { identify } = await import('@libp2p/identify')
const { ping } = await import('@libp2p/ping')
const { webRTCDirect } = await import('@libp2p/webrtc')
const { multiaddr } = await import('@multiformats/multiaddr')
const { createLibp2p } = await import('libp2p')

const ECHO = '/kodo/test/echo/1'
const node = await createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/udp/0/webrtc-direct'] },
  transports: [webRTCDirect({ rtcConfiguration: { iceServers: [] } })],
  connectionGater: { denyDialMultiaddr: () => false },
  services: { identify: identify({ runOnConnectionOpen: false }), ping: ping() }
})

async function write (stream, bytes) {
  if (!stream.send(bytes)) await stream.onDrain()
}

await node.handle(ECHO, async stream => {
  for await (const chunk of stream) await write(stream, chunk.subarray())
  await stream.close()
})

async function echo (connection, count, size) {
  const stream = await connection.newStream(ECHO)
  const sent = createHash('sha256')
  const back = createHash('sha256')
  let bytes = 0
  const reading = (async () => {
    for await (const chunk of stream) {
      back.update(chunk.subarray())
      bytes += chunk.byteLength
    }
  })()
  for (let i = 0; i < count; i++) {
    const data = randomBytes(size)
    sent.update(data)
    await write(stream, data)
  }
  await Promise.all([stream.close(), reading])
  return { bytes, sent: sent.digest('hex'), back: back.digest('hex') }
}

const does = {
  listen: async () => ({ address: node.getMultiaddrs()[0].toString() }),
  async dial ({ address, streams }) {
    const connection = await node.dial(multiaddr(address))
    try {
      return { report: await Promise.all(streams.map(([count, size]) => echo(connection, count, size))) }
    } finally {
      await connection.close()
    }
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, op, ...rest } = JSON.parse(line)
  does[op](rest)
    .catch(error => ({ error: String(error?.stack ?? error) }))
    .then(answer => process.stdout.write(`${JSON.stringify({ id, ...answer })}\n`))
}
// node-datachannel keeps a thread that would hold the process open.
process.exit(0)
