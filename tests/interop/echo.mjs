/**
 * Dial a kodo peer with js-libp2p, unmodified, for `scripts/interop`; the same steps as `go/`.
 *
 *   node echo.mjs MULTIADDR PROTOCOL STREAMS BYTES
 *
 * PROTOCOL echoes. Prints one JSON object a step: `dial`, `identify`, `ping`, `streams` (STREAMS at once, each with
 * bytes of its own), `transfer` (BYTES each way on one).
 */
// js-libp2p uses Promise.withResolvers, which Node.js has from 22 on.
Promise.withResolvers ??= function () { let r; const promise = new this((...both) => { r = both }); return { promise, resolve: r[0], reject: r[1] } }

const { createHash, randomBytes } = await import('node:crypto')
const { identify } = await import('@libp2p/identify')
const { ping } = await import('@libp2p/ping')
const { webRTCDirect } = await import('@libp2p/webrtc')
const { multiaddr } = await import('@multiformats/multiaddr')
const { createLibp2p } = await import('libp2p')

const PIECE = 16 << 10
const STREAM = 16 << 10
const [address, protocol, streams, size] = process.argv.slice(2)
const node = await createLibp2p({
  addresses: { listen: [] },
  transports: [webRTCDirect({ rtcConfiguration: { iceServers: [] } })],
  connectionGater: { denyDialMultiaddr: () => false },
  services: { identify: identify({ runOnConnectionOpen: false }), ping: ping() }
})

const say = (step, began, facts) => new Promise(resolve => {
  process.stdout.write(`${JSON.stringify({ step, ms: Math.round(performance.now() - began), ...facts })}\n`, resolve)
})

/** Send random bytes, end this side, and compare what comes back. */
async function echoed (connection, count) {
  const stream = await connection.newStream(protocol, { maxOutboundStreams: 1024 })
  const sent = createHash('sha256')
  const back = createHash('sha256')
  let came = 0
  const reading = (async () => {
    for await (const chunk of stream) {
      back.update(chunk.subarray())
      came += chunk.byteLength
    }
  })()
  for (let left = count; left > 0; left -= PIECE) {
    const piece = randomBytes(Math.min(left, PIECE))
    sent.update(piece)
    if (!stream.send(piece)) await stream.onDrain()
  }
  await Promise.all([stream.close(), reading])
  if (came !== count || sent.digest('hex') !== back.digest('hex')) throw new Error(`${count} bytes were sent, and ${came} others came back`)
  return came
}

/** Wait until streams have ended, on the other side too: they count among those that it takes. */
async function ended (connection) {
  for (let turn = 0; turn < 2; turn++) {
    while (connection.streams.length > 0) await new Promise(resolve => setTimeout(resolve, 10))
    if (turn === 0) await node.services.identify.identify(connection)
  }
}

let code = 0
try {
  let began = performance.now()
  const connection = await node.dial(multiaddr(address))
  await say('dial', began, { peer_id: connection.remotePeer.toString() })

  began = performance.now()
  const known = await node.services.identify.identify(connection)
  await say('identify', began, { agent: known.agentVersion, protocols: known.protocols })

  began = performance.now()
  const rtt = await node.services.ping.ping(connection.remotePeer)
  await say('ping', began, { rtt_us: rtt * 1000 })

  await ended(connection)
  began = performance.now()
  const came = await Promise.all(Array.from({ length: Number(streams) }, async () => await echoed(connection, STREAM)))
  await say('streams', began, { streams: came.length, bytes: came.length * STREAM })

  await ended(connection)
  began = performance.now()
  const bytes = await echoed(connection, Number(size))
  await say('transfer', began, { bytes })
} catch (error) {
  code = 1
  process.stderr.write(`${error?.stack ?? error}\n`)
}
// node-datachannel keeps a thread that would hold the process open.
process.exit(code)
