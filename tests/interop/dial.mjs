/**
 * Dial a kodo node with js-libp2p and use it as any peer may.
 *
 *   node dial.mjs MULTIADDR [FLOW_PATH [INPUTS_AS_JSON]] [--timeout SECONDS]
 *
 * Prints one JSON object per step on stdout: `dial`, `identify`, `ping`, `node.state`, and with a flow `run.launch`,
 * an `event` for each event and `run.stream`; then `closed`. The first step that fails is an `error`, and the exit
 * code is 1 (2 for wrong arguments).
 */
// js-libp2p uses Promise.withResolvers, which Node.js has from 22 on.
Promise.withResolvers ??= function () { let r; const promise = new this((...both) => { r = both }); return { promise, resolve: r[0], reject: r[1] } }

const { setMaxListeners } = await import('node:events')
const { parseArgs } = await import('node:util')
const { identify } = await import('@libp2p/identify')
const { ping } = await import('@libp2p/ping')
const { webRTCDirect } = await import('@libp2p/webrtc')
const { multiaddr } = await import('@multiformats/multiaddr')
const { createLibp2p } = await import('libp2p')
const { call, request } = await import('./kodo-call.mjs')

const readable = (_key, value) => {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex')
  return typeof value === 'bigint' ? Number(value) : value
}

/** Settles once the line is out: a pipe that is full would otherwise lose its last lines when the process exits. */
const print = (step, facts) => new Promise(resolve => {
  process.stdout.write(`${JSON.stringify({ step, ...facts }, readable)}\n`, resolve)
})

function usage (message) {
  process.stderr.write(`dial.mjs: ${message}\nusage: node dial.mjs MULTIADDR [FLOW_PATH [INPUTS]] [--timeout SECONDS]\n`)
  process.exit(2)
}

function parsed () {
  try {
    const { values, positionals } = parseArgs({ options: { timeout: { type: 'string', default: '60' } }, allowPositionals: true })
    const [address, path, inputs = '{}', ...more] = positionals
    if (address === undefined || more.length > 0) usage('one multiaddr is needed')
    const seconds = Number(values.timeout)
    if (!(seconds > 0)) usage(`--timeout ${values.timeout} is not a number of seconds`)
    const target = multiaddr(address)
    const peer = target.getComponents().find(part => part.name === 'p2p')?.value
    if (peer === undefined) usage('the multiaddr names no peer: /p2p/… is missing')
    return { target, peer, path, inputs: JSON.parse(inputs), seconds }
  } catch (error) {
    return usage(error.message)
  }
}

const options = parsed()
const signal = AbortSignal.timeout(options.seconds * 1000)
// Every part of js-libp2p that works on a dial listens to it; Node.js takes more than ten for a leak.
setMaxListeners(100, signal)
let step = 'start'
let node
let code = 0
try {
  node = await createLibp2p({
    addresses: { listen: [] },
    transports: [webRTCDirect({ rtcConfiguration: { iceServers: [] } })],
    // The address that is dialled is on the loopback or a private network, which js-libp2p avoids by itself.
    connectionGater: { denyDialMultiaddr: () => false },
    services: { identify: identify({ runOnConnectionOpen: false }), ping: ping() }
  })

  step = 'dial'
  let started = performance.now()
  const connection = await node.dial(options.target, { signal })
  const reached = connection.remotePeer.toString()
  if (reached !== options.peer) throw new Error(`dialled ${options.peer}, reached ${reached}`)
  await print(step, { peer_id: reached, address: connection.remoteAddr.toString(), local_peer_id: node.peerId.toString(), ms: performance.now() - started })

  step = 'identify'
  const known = await node.services.identify.identify(connection, { signal })
  if (known.peerId.toString() !== options.peer) throw new Error(`identify names ${known.peerId}`)
  await print(step, {
    peer_id: known.peerId.toString(),
    agent: known.agentVersion,
    protocol_version: known.protocolVersion,
    protocols: known.protocols,
    addresses: known.listenAddrs.map(String)
  })

  step = 'ping'
  await print(step, { ms: await node.services.ping.ping(connection.remotePeer, { signal }) })

  step = 'node.state'
  await print(step, { done: await request(connection, step, {}, { signal }) })

  if (options.path !== undefined) {
    step = 'run.launch'
    const launched = await request(connection, step, { path: options.path, inputs: options.inputs }, { signal })
    await print(step, { done: launched })

    step = 'run.stream'
    started = performance.now()
    const items = call(connection, step, { fid: launched.fid, after: 0, follow: true }, { signal })
    let next
    let count = 0
    while (!(next = await items.next()).done) {
      count++
      await print('event', next.value)
    }
    await print(step, { done: next.value, events: count, ms: performance.now() - started })
  }

  step = 'close'
  await connection.close({ signal: AbortSignal.timeout(5000) })
  await print('closed', {})
} catch (error) {
  code = 1
  const { name, message, code: status, reason, data } = error
  await print('error', { during: step, name, message, code: status, reason, data })
} finally {
  await Promise.race([node?.stop(), new Promise(resolve => setTimeout(resolve, 5000))])
}
// node-datachannel keeps a thread that would hold the process open.
process.exit(code)
