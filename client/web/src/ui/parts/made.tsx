/** Links that a node made: how long they hold, what they show, and the link itself, which is shown once. */
import { useId, useState } from 'preact/hooks'
import { host } from '../host.ts'
import { say } from '../texts.ts'
import { coded } from './coded.tsx'
import { later } from './later.tsx'
import { CopyLine } from './parts.tsx'

const text = say.made
const HOURS: [number, string][] = [
  [1, '1 hour'],
  [24, '1 day'],
  [168, '7 days'],
  [720, '30 days']
]

const QrCode = later(async () => (await import('./qr.tsx')).QrCode)

export function ExpiryField({ hours, set }: { hours: number; set: (hours: number) => void }) {
  const id = useId()
  return (
    <div class="field">
      <label for={id}>{text.expires}</label>
      <select id={id} class="input" value={String(hours)} onChange={event => set(Number(event.currentTarget.value))}>
        {HOURS.map(([count, word]) => (
          <option key={count} value={String(count)}>
            {word}
          </option>
        ))}
      </select>
    </div>
  )
}

/** `most`: the level at which the person sees it. */
export function LevelField({ label, level, most, set }: { label: string; level: number; most: number; set: (level: number) => void }) {
  const id = useId()
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <select id={id} class="input" value={String(level)} onChange={event => set(Number(event.currentTarget.value))}>
        {text.levels.slice(0, most + 1).map((word, index) => (
          <option key={index} value={String(index)}>
            {word}
          </option>
        ))}
      </select>
    </div>
  )
}

interface MadeLinkProps {
  token: string
  /** As the node writes it: for a page where it is listed by an https registry. */
  link: string
  /** What opens it in a page: a run by `get`, an invitation by `open`. */
  opens: 'get' | 'open'
  about: string
}

/** A link to copy, for a browser and for koco, and as a QR code. */
export function MadeLink({ token, link, opens, about }: MadeLinkProps) {
  const [isDrawn, setIsDrawn] = useState(false)
  // Both are a node's words, and go into the clipboard: nothing but the link that they say they are.
  if (!/^[\w-]{1,4096}$/.test(token)) return <p role="alert">{text.unsound}</p>
  const isWeb = link.startsWith('https://') && URL.canParse(link) && new URL(link).href === link && link.endsWith(`#${opens}=${token}`)
  const isHere = !isWeb && (host.value.kind !== 'registry' || /^https?:\/\/(127\.|localhost|\[::1\])/.test(location.origin))
  const page = isWeb ? link : `${location.origin}/#${opens}=${token}`
  const koco = `kodo:${token}`
  return (
    <div class="stack" role="status">
      <p>{about}</p>
      <div class="stack tight">
        <h3>{text.page}</h3>
        <CopyLine text={page} label={text.page} />
      </div>
      <div class="stack tight">
        <h3>{text.koco}</h3>
        <CopyLine text={koco} label={text.koco} />
      </div>
      {isHere && <p class="small muted">{coded(text.local[opens])}</p>}
      {isDrawn ? (
        <div class="stack tight">
          <QrCode text={isHere ? koco : page} />
          <p class="small muted">{isHere ? text.codeKoco : text.codePage}</p>
        </div>
      ) : (
        <div class="row">
          <button type="button" class="button small" onClick={() => setIsDrawn(true)}>
            {text.draw}
          </button>
        </div>
      )}
    </div>
  )
}
