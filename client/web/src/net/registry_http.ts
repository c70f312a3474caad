/** One exchange with a registry over HTTP: bounded in time and size, its refusals as errors. */
import { CallError, NetworkError, PeerError } from '../core/errors.ts'
import { concat } from '../core/bytes.ts'
import { decode } from '../core/msgpack.ts'
import { type Bytes, type Row, type Value, fieldOf, isRow } from '../core/value.ts'

/** Milliseconds. */
const TIMEOUT = 15_000
/** As Python's client bounds an answer. */
const MAX_BYTES = 32 << 20
const MSGPACK = 'application/msgpack'

/** Ask a registry, and return its answer, a map. @throws CallError as it refuses, NetworkError where it is not reached. */
export async function exchange(
  url: string,
  method: string,
  target: string,
  body: Bytes,
  type: string,
  headers: Record<string, string>,
  signal?: AbortSignal
): Promise<Row> {
  const deadline = AbortSignal.timeout(TIMEOUT)
  let response: Response
  let read: Value
  try {
    response = await fetch(url + target, {
      method,
      headers: { ...headers, ...(body.length > 0 && { 'Content-Type': type }) },
      body: body.length > 0 ? body : null,
      signal: signal ? AbortSignal.any([signal, deadline]) : deadline,
      credentials: 'omit',
      referrerPolicy: 'no-referrer',
      redirect: 'error',
      cache: 'no-store'
    })
    const bytes = await bounded(response)
    const isPacked = response.ok && response.headers.get('Content-Type')?.startsWith(MSGPACK) === true
    read = isPacked ? decode(bytes) : parse(bytes)
  } catch (error) {
    if (signal?.aborted || error instanceof PeerError) throw error
    throw new NetworkError(`The registry ${url} cannot be reached.`)
  }
  if (response.ok && isRow(read)) return read
  throw refusalOf(response.status, read, url)
}

async function bounded(response: Response): Promise<Bytes> {
  const reader = response.body?.getReader()
  const parts: Bytes[] = []
  let size = 0
  for (;;) {
    const part = await reader?.read()
    if (!part || part.done) return concat(...parts)
    parts.push(part.value)
    size += part.value.length
    if (size > MAX_BYTES) {
      await reader?.cancel()
      throw new PeerError('A registry answers more than is read.')
    }
  }
}

/** Read JSON; what is none is null. */
function parse(bytes: Bytes): Value {
  try {
    return JSON.parse(new TextDecoder().decode(bytes)) as Value
  } catch {
    return null
  }
}

/** A refusal as problem details (RFC 9457), as the same error as a node's. */
function refusalOf(status: number, body: Value, url: string): CallError {
  const said = isRow(body) ? body : {}
  const [reason, detail] = [fieldOf(said, 'reason'), fieldOf(said, 'detail') ?? fieldOf(said, 'title')]
  const message = typeof detail === 'string' ? detail : `The registry ${url} answered ${status}.`
  return new CallError(status, typeof reason === 'string' ? reason : 'refused', message, said)
}
