/** The region *Outputs*: what a run made, shown in place, downloaded and verified. */
import { useEffect, useRef, useState } from 'preact/hooks'
import { numberOf, textOf, type Row, type Value } from '../../core/value.ts'
import type { DownloadHandle, NodeClient, TransferNews } from '../../net/api.ts'
import { announce, explain } from '../app.ts'
import { bytes, dotted, oneLine } from '../format.ts'
import { DownIcon, DoneIcon } from '../parts/icons.tsx'
import { Tree } from '../show/data.tsx'
import { LazyMarkdown } from '../show/lazy.tsx'
import { type Shape, shapeOf, Shown } from '../show/show.tsx'
import { say } from '../texts.ts'

const text = say.run

interface Props {
  node: NodeClient
  fid: string
  outputs: readonly Row[]
  over: boolean
  result: Value | undefined
  /** On the page of a link everything is downloaded by one button. */
  linked?: boolean
}

const MOST_SHOWN = 200

export function Outputs({ node, fid, outputs, over, result, linked = false }: Props) {
  const [most, setMost] = useState(MOST_SHOWN)
  const names = outputs.map(row => textOf(row, 'name'))
  const size = outputs.reduce((sum, row) => sum + (numberOf(row, 'size') ?? 0), 0)
  return (
    <section class="card stack" aria-labelledby="outputs">
      <div class="row between">
        <h2 id="outputs">{text.outputs}</h2>
        {outputs.length > 0 && <span class="small muted">{bytes(size)}</span>}
      </div>
      {result !== undefined && result !== null && result !== '' && (
        <div class="result stack tight">
          <h3>{text.result}</h3>
          {typeof result === 'string' ? <LazyMarkdown text={result} /> : <Tree value={result} />}
        </div>
      )}
      {(linked ? outputs.length > 0 : outputs.length > 1) && over && (
        <Download label={linked ? text.downloadAll : text.zip} main={linked} describe="" begin={() => (names.length === 1 && names[0] !== undefined ? node.download(fid, names[0]) : node.downloadZip(fid, names, { saveAs: `${fid}.zip` }))} />
      )}
      {outputs.length === 0 ? (
        <p class="muted">{over ? text.noOutputsOver : text.noOutputs}</p>
      ) : (
        <ul class="stack">
          {outputs.slice(0, most).map(row => (
            <Output key={textOf(row, 'name')} node={node} fid={fid} row={row} />
          ))}
        </ul>
      )}
      {outputs.length > most && (
        <button type="button" class="button plain small" onClick={() => setMost(most * 5)}>
          {say.more}
        </button>
      )}
      {outputs.length > 0 && <p class="small muted">{text.unsafe}</p>}
    </section>
  )
}

function Output({ node, fid, row }: { node: NodeClient; fid: string; row: Row }) {
  const name = textOf(row, 'name')
  const mediaType = textOf(row, 'media_type')
  const size = numberOf(row, 'size')
  const shape: Shape | undefined = shapeOf(mediaType, name)
  const [open, setOpen] = useState(false)
  const label = `output-${name}`
  return (
    <li class="output stack tight">
      <div class="row between">
        <div class="grow">
          <strong id={label} class="output-name">
            {oneLine(name, 500)}
          </strong>
          <p class="small muted">
            {dotted(bytes(size), oneLine(mediaType, 80))}
          </p>
        </div>
        <div class="row">
          {shape !== undefined && (size ?? 0) <= 16 << 20 && (
            <button type="button" class="button" aria-expanded={open} aria-describedby={label} onClick={() => setOpen(!open)}>
              {open ? text.hide : text.show}
            </button>
          )}
          <Download label={text.download} describe={label} begin={() => node.download(fid, name)} />
        </div>
      </div>
      {open && shape !== undefined && <Shown node={node} fid={fid} name={name} mediaType={mediaType} shape={shape} />}
    </li>
  )
}

/** A button that downloads, what became of it, and the mark that all of it was verified. */
export function Download({ label, describe, begin, main = false }: { label: string; describe: string; begin: () => DownloadHandle; main?: boolean }) {
  const [handle, setHandle] = useState<DownloadHandle | undefined>()
  const [news, setNews] = useState<TransferNews | undefined>()
  const [error, setError] = useState<unknown>()
  const [renamed, setRenamed] = useState('')
  const live = useRef(true)
  useEffect(() => () => void (live.current = false), [])
  const start = async () => {
    setError(undefined)
    setRenamed('')
    const made = begin()
    setHandle(made)
    setNews({ status: 'running', bytes: 0 })
    const stop = made.on(setNews)
    try {
      const { name, file } = await made.done
      if (live.current && file !== name.split('/').at(-1)) setRenamed(file)
      announce(`${made.name} ${text.verified}`)
    } catch (failed) {
      if (live.current && made.status !== 'cancelled') setError(failed)
    } finally {
      stop()
      if (live.current) setNews({ status: made.status, bytes: made.bytes })
    }
  }
  const isRunning = news?.status === 'running' || news?.status === 'away'
  return (
    <div class="download">
      {isRunning && handle ? (
        <div class="row">
          <progress class="meter" aria-label={`${label} ${handle.name}`} max={handle.size ?? undefined} value={handle.size === undefined ? undefined : news.bytes} />
          <span class="small muted">{text.downloading(bytes(news.bytes), bytes(handle.size))}</span>
          <button type="button" class="button plain small" onClick={() => handle.cancel()}>
            {text.cancelDownload}
          </button>
        </div>
      ) : (
        <div class="row">
          {news?.status === 'done' && (
            <span class="verified small">
              <DoneIcon />
              {text.verified}
            </span>
          )}
          <button type="button" class={`button ${main ? 'main' : ''}`} aria-describedby={describe || undefined} onClick={() => void start()}>
            <DownIcon />
            {label}
          </button>
        </div>
      )}
      {renamed !== '' && <p class="small muted">{text.savedAs(renamed)}</p>}
      {error !== undefined && (
        <p class="fault" role="alert">
          {explain(error).title} {explain(error).text}
        </p>
      )}
    </div>
  )
}
