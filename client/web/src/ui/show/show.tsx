/** An output in place: read, verified, and shown so that nothing of it can act. */
import { useEffect, useState } from 'preact/hooks'
import type { Value } from '../../core/value.ts'
import type { NodeClient } from '../../net/api.ts'
import { useTask, Failure } from '../parts/parts.tsx'
import { say } from '../texts.ts'
import { Csv, Tree } from './data.tsx'
import { LazyMarkdown } from './lazy.tsx'

export type Shape = 'markdown' | 'json' | 'csv' | 'image' | 'pdf' | 'html' | 'text'

const MAX_SHOWN = 16 << 20
const MAX_TEXT = 400_000
const IMAGES = new Set(['image/png', 'image/jpeg', 'image/gif', 'image/webp', 'image/avif', 'image/svg+xml', 'image/bmp'])

/** Return how an output can be shown; undefined where it cannot. */
export function shapeOf(mediaType: string, name: string): Shape | undefined {
  const type = mediaType.split(';', 1)[0]?.trim().toLowerCase() ?? ''
  const ending = /\.([a-z0-9]{1,8})$/i.exec(name)?.[1]?.toLowerCase()
  if (type === 'text/markdown' || ending === 'md') return 'markdown'
  if (type === 'application/json' || type.endsWith('+json')) return 'json'
  if (type === 'text/csv' || type === 'text/tab-separated-values') return 'csv'
  if (IMAGES.has(type)) return 'image'
  if (type === 'application/pdf') return 'pdf'
  if (type === 'text/html') return 'html'
  return type.startsWith('text/') ? 'text' : undefined
}

interface Props {
  node: NodeClient
  fid: string
  name: string
  mediaType: string
  shape: Shape
}

export function Shown({ node, fid, name, mediaType, shape }: Props) {
  const [body, setBody] = useState<Uint8Array<ArrayBuffer> | undefined>()
  const [error, setError] = useState<unknown>()
  useTask(
    async stop => {
      try {
        const read = await node.read(fid, name, { maxBytes: MAX_SHOWN, signal: stop })
        if (!stop.aborted) setBody(read)
      } catch (failed) {
        if (!stop.aborted) setError(failed)
      }
    },
    [node, fid, name]
  )
  if (error !== undefined) return <Failure error={error} />
  if (!body)
    return (
      <p class="muted" role="status">
        {say.loading}
      </p>
    )
  if (shape === 'image' || shape === 'pdf' || shape === 'html') return <Blobbed body={body} name={name} mediaType={mediaType} shape={shape} />
  const text = new TextDecoder().decode(body)
  if (shape === 'markdown') return <LazyMarkdown text={text} />
  if (shape === 'csv') return <Csv text={text} />
  if (shape === 'json') {
    try {
      return <Tree value={JSON.parse(text) as Value} />
    } catch {
      // It says that it is JSON and is not: as text.
    }
  }
  return (
    <pre class="plain" tabIndex={0}>
      {text.slice(0, MAX_TEXT)}
      {text.length > MAX_TEXT && `\n${say.show.cut}`}
    </pre>
  )
}

/** What the browser itself shows, from a blob: it inherits this page's policy, so its scripts do not run. */
function Blobbed({ body, name, mediaType, shape }: { body: Uint8Array<ArrayBuffer>; name: string; mediaType: string; shape: Shape }) {
  const [url, setUrl] = useState<string | undefined>()
  useEffect(() => {
    const type = shape === 'pdf' ? 'application/pdf' : shape === 'html' ? 'text/html;charset=utf-8' : mediaType
    const made = URL.createObjectURL(new Blob([body], { type }))
    setUrl(made)
    return () => URL.revokeObjectURL(made)
  }, [body, mediaType, shape])
  if (url === undefined) return null
  if (shape === 'image') return <img class="shown-image" src={url} alt={say.show.imageOf(name)} />
  // Any sandbox keeps the browser's PDF viewer from working, and a PDF has no origin to act in.
  if (shape === 'pdf') return <iframe class="shown-frame" src={url} title={name} />
  return <iframe class="shown-frame" src={url} title={name} sandbox="" />
}
