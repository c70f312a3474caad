/** Many runs of one flow: a table of inputs is pasted or chosen, looked at, and launched, a row a run. */
import { useEffect, useId, useMemo, useRef, useState } from 'preact/hooks'
import { CallError } from '../../core/errors.ts'
import { textOf, type Row, type Value } from '../../core/value.ts'
import { announce, chosenNode, explain, now, placesOf } from '../app.ts'
import { remember } from '../book.ts'
import { brief } from '../format.ts'
import { Note } from '../parts/parts.tsx'
import { paths } from '../router.ts'
import { say } from '../texts.ts'
import { begunBatch, keepBatch } from './batch.ts'
import { columnsOf, type InputRow, MAX_CHARACTERS, readRows, refusalOf } from './rows.ts'

const text = say.many
const MOST_SHOWN = 50
const MOST_COLUMNS = 8
/** How many launches are under way at once. */
const AT_ONCE = 4
const PAUSE_MS = 1000
/** How often a node that is busy is asked again for one row. */
const TRIES = 60
const MAX_TAG = 128

/** What became of a row. */
type Outcome = { fid: string } | { refused: string }

interface ManyProps {
  peerId: string
  path: string
  schema: Row
  /** What was filled in, which holds for rows that do not say otherwise. */
  common: Row
  close: () => void
}

export function ManyRuns({ peerId, path, schema, common, close }: ManyProps) {
  const id = useId()
  const [typed, setTyped] = useState('')
  const [tag, setTag] = useState(() => text.tagOf(new Date()))
  const [outcomes, setOutcomes] = useState<ReadonlyMap<number, Outcome>>(new Map())
  const [running, setRunning] = useState<AbortController | undefined>()
  const [fault, setFault] = useState('')
  const heading = useRef<HTMLHeadingElement>(null)
  useEffect(() => heading.current?.focus(), [])
  const { rows, wrong } = useMemo(() => {
    try {
      return { rows: readRows(typed, schema, common), wrong: '' }
    } catch (error) {
      return { rows: [], wrong: error instanceof Error ? error.message : '' }
    }
  }, [typed, schema, common])
  const [anew, setAnew] = useState(false)
  const flow = `${peerId} ${path}`
  const begun = useMemo(() => (anew ? undefined : begunBatch(flow, schema, rows, now.peek())), [flow, schema, rows, anew])
  // One key a row: launched again after a lost session or a reload, it is the same run.
  const batch = useMemo(() => begun?.id ?? crypto.randomUUID(), [begun, typed])
  useEffect(() => begun && setTag(begun.tag), [begun])
  const good = rows.filter(row => row.fault === '')
  const todo = good.filter(row => !('fid' in (outcomes.get(row.number) ?? {})))
  const launched = good.length - todo.length
  const label = tag.trim()
  const change = (given: string) => {
    setTyped(given)
    setAnew(false)
    setOutcomes(new Map())
    setFault('')
  }
  const choose = async (file: File | undefined) => {
    if (!file) return
    if (file.size > MAX_CHARACTERS) setFault(text.tooLong)
    else change(await file.text())
  }
  const launch = async () => {
    const stop = new AbortController()
    setRunning(stop)
    setFault('')
    keepBatch(flow, schema, rows, { id: batch, tag: label }, now.peek())
    const left = todo[Symbol.iterator]()
    const work = async () => {
      for (const row of left) {
        if (stop.signal.aborted) return
        const outcome = await launchRow(peerId, { path, inputs: row.inputs, key: `${batch}/${row.number}`, tags: label ? [label] : [], strict: true }, stop.signal)
        if (outcome) setOutcomes(before => new Map(before).set(row.number, outcome))
      }
    }
    try {
      await Promise.all(Array.from({ length: AT_ONCE }, work))
      remember(peerId, '', [], { used: true })
    } catch (error) {
      // What concerns all rows, such as a node that is away, ends the batch.
      stop.abort()
      const { title, text: more } = explain(error)
      setFault(`${title}. ${more}`)
    } finally {
      setRunning(undefined)
    }
  }
  useEffect(() => {
    if (!running) {
      if (outcomes.size > 0) announce(text.launched(launched))
      return undefined
    }
    const stay = (event: BeforeUnloadEvent) => event.preventDefault()
    addEventListener('beforeunload', stay)
    return () => removeEventListener('beforeunload', stay)
  }, [running])
  useEffect(() => () => running?.abort(), [running])
  return (
    <section class="card stack" aria-labelledby={`${id}-title`}>
      <div>
        <h2 id={`${id}-title`} ref={heading} tabIndex={-1}>
          {text.title}
        </h2>
        <p class="muted">{text.text}</p>
      </div>
      <div class="field">
        <label for={`${id}-rows`}>{text.rows}</label>
        <textarea
          id={`${id}-rows`}
          class="input mono"
          rows={6}
          spellcheck={false}
          disabled={running !== undefined}
          placeholder={text.example}
          aria-invalid={wrong !== ''}
          aria-describedby={wrong ? `${id}-wrong` : undefined}
          value={typed}
          onInput={event => change(event.currentTarget.value)}
        />
        {wrong && (
          <p id={`${id}-wrong`} class="fault">
            {wrong}
          </p>
        )}
      </div>
      <div class="field">
        <label for={`${id}-file`}>{text.file}</label>
        <input
          id={`${id}-file`}
          type="file"
          accept=".csv,.tsv,.json,.jsonl,.ndjson,.txt"
          disabled={running !== undefined}
          onChange={event => void choose(event.currentTarget.files?.[0])}
        />
      </div>
      {rows.length > 0 && (
        <>
          <div class="field">
            <label for={`${id}-tag`}>{text.tag}</label>
            <input id={`${id}-tag`} class="input" autocomplete="off" maxLength={MAX_TAG} disabled={running !== undefined || launched > 0} value={tag} onInput={event => setTag(event.currentTarget.value)} />
            <p class="about">{text.tagAbout}</p>
          </div>
          <Preview peerId={peerId} rows={rows} outcomes={outcomes} />
        </>
      )}
      {begun && !running && outcomes.size === 0 && (
        <Note kind="warn" title={text.begun}>
          <p>{text.begunText}</p>
          <p>
            <button type="button" class="button small" onClick={() => setAnew(true)}>
              {text.anew}
            </button>
          </p>
        </Note>
      )}
      {fault && (
        <Note kind="bad">
          <p>{fault}</p>
        </Note>
      )}
      {running && (
        <div class="row">
          <progress class="meter" aria-label={text.launched(launched)} max={good.length} value={outcomes.size} />
          <span class="small muted">{text.launched(launched)}</span>
        </div>
      )}
      {!running && outcomes.size > 0 && (
        <Note kind={launched > 0 ? 'good' : 'warn'} title={text.launched(launched)}>
          {todo.length > 0 && <p>{text.left(todo.length)}</p>}
          {launched > 0 && label && (
            <p>
              <a href={paths.runs(label)}>{text.group}</a>
            </p>
          )}
        </Note>
      )}
      <div class="row">
        {running ? (
          <button type="button" class="button" onClick={() => running.abort()}>
            {text.stop}
          </button>
        ) : (
          <>
            <button type="button" class="button main" disabled={todo.length === 0} onClick={() => void launch()}>
              {text.launch(todo.length)}
            </button>
            <button type="button" class="button" onClick={close}>
              {say.close}
            </button>
          </>
        )}
      </div>
    </section>
  )
}

/** Launch a row, again while the node is busy. Undefined when it was stopped. @throws what is not about this row alone. */
async function launchRow(peerId: string, args: { path: string; inputs: Row; key: string; tags: string[]; strict: boolean }, stop: AbortSignal): Promise<Outcome | undefined> {
  for (let left = TRIES; !stop.aborted; left -= 1)
    try {
      return { fid: textOf(await (await chosenNode(peerId)).ask('run.launch', args), 'fid') }
    } catch (error) {
      if (!(error instanceof CallError) || error.code === 401 || error.code === 503) throw error
      if (error.code !== 429 || left <= 0) {
        const { title, text: more } = explain(error)
        return { refused: refusalOf(placesOf(error), more || title) }
      }
      await new Promise(resolve => setTimeout(resolve, PAUSE_MS))
    }
  return undefined
}

/** What is launched: those that cannot be come first, with why. */
function Preview({ peerId, rows, outcomes }: { peerId: string; rows: readonly InputRow[]; outcomes: ReadonlyMap<number, Outcome> }) {
  const [most, setMost] = useState(MOST_SHOWN)
  const columns = useMemo(() => columnsOf(rows, MOST_COLUMNS), [rows])
  const faultOf = (row: InputRow): string => {
    const outcome = outcomes.get(row.number)
    return row.fault || (outcome && 'refused' in outcome ? outcome.refused : '')
  }
  const faulty = rows.filter(row => faultOf(row) !== '')
  const shown = [...faulty, ...rows.filter(row => faultOf(row) === '')].slice(0, most)
  return (
    <div class="stack tight">
      <p class="small muted" role="status">
        {text.count(rows.length)}
        {faulty.length > 0 && <strong class="fault"> {text.faults(faulty.length)}</strong>}
      </p>
      <div class="scroll tall" tabIndex={0} role="group" aria-label={text.preview}>
        <table class="table">
          <thead>
            <tr>
              <th scope="col">{text.row}</th>
              {columns.map(name => (
                <th key={name} scope="col">
                  {brief(name, 60)}
                </th>
              ))}
              <th scope="col">{text.became}</th>
            </tr>
          </thead>
          <tbody>
            {shown.map(row => {
              const outcome = outcomes.get(row.number)
              return (
                <tr key={row.number}>
                  <th scope="row">{row.number}</th>
                  {columns.map(name => (
                    <td key={name}>{Object.hasOwn(row.own, name) ? brief(row.own[name] as Value, 80) : ''}</td>
                  ))}
                  <td>
                    {outcome && 'fid' in outcome ? <a href={paths.run(peerId, outcome.fid)}>{text.run}</a> : <span class="fault">{brief(faultOf(row), 300)}</span>}
                  </td>
                </tr>
              )
            })}
          </tbody>
        </table>
      </div>
      {rows.length > most && (
        <button type="button" class="button plain small" onClick={() => setMost(most * 5)}>
          {say.more}
        </button>
      )}
    </div>
  )
}
