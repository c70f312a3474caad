/** A link as a QR code, to be read by a phone. */
import { encodeQR } from 'qr'
import { useMemo } from 'preact/hooks'
import { say } from '../texts.ts'

/** Light modules around a code, so that cameras find it: ISO/IEC 18004 asks for four. */
const QUIET = 4
/** What the largest code holds. */
const MAX_BYTES = 2953

/** Return the dark modules as the path of a drawing, and how many modules it is wide; undefined for what is too long. */
export function drawn(text: string): { path: string; size: number } | undefined {
  if (new TextEncoder().encode(text).length > MAX_BYTES) return undefined
  // The least redundancy: a screen has no dirt, and fewer modules are larger ones.
  const rows = encodeQR(text, 'raw', { ecc: 'low', encoding: 'byte', border: QUIET })
  const path = rows.flatMap((row, y) => row.flatMap((isDark, x) => (isDark ? [`M${x} ${y}h1v1h-1z`] : []))).join('')
  return { path, size: rows.length }
}

export function QrCode({ text }: { text: string }) {
  const code = useMemo(() => drawn(text), [text])
  if (!code) return <p class="fault">{say.made.tooLong}</p>
  return (
    <svg class="qr" viewBox={`0 0 ${code.size} ${code.size}`} role="img" aria-label={say.made.code} shape-rendering="crispEdges">
      <path d={code.path} />
    </svg>
  )
}
