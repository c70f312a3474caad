/** Enrolment of this browser: what it says to show that it was told the operator's code (`kodo.protocol.enrol`). */
import { hmac } from '@noble/hashes/hmac.js'
import { sha256 } from '@noble/hashes/sha2.js'
import { concat, utf8 } from './bytes.ts'
import { UsageError } from './errors.ts'
import type { Bytes } from './value.ts'

const CODE = /^[0-9A-HJKMNP-TV-Z]{12}$/

/**
 * Return the proof (32 bytes): HMAC-SHA256 under the code, over the peer ids of node and device.
 * @param code as people write it: small or capital, with or without its dashes.
 * @throws UsageError: it is no code.
 */
export function makeProof(code: string, node: string, device: string): Bytes {
  const read = code.replace(/[\s-]/g, '').toUpperCase().replaceAll('O', '0').replace(/[IL]/g, '1')
  if (!CODE.test(read)) throw new UsageError('A code has 12 letters and digits, as in 7K3M-0PQR-W9XZ.')
  const zero = new Uint8Array(1)
  return hmac(sha256, utf8(read), concat(utf8('kodo enrolment v1'), zero, utf8(node), zero, utf8(device)))
}
