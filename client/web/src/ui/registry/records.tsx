/** The records of a registry as its operators see them, and their words in place of a node's. */
import { useId, useState } from 'preact/hooks'
import { fieldOf, isRow, numberOf, textOf, type Row } from '../../core/value.ts'
import type { RegistryOperator } from '../../net/api.ts'
import { announce } from '../app.ts'
import { brief, dotted, oneLine } from '../format.ts'
import { Dialog, Failure, Time, useTask } from '../parts/parts.tsx'
import { say } from '../texts.ts'

const text = say.registry
const SHOWN = 50

export function Records({ at }: { at: RegistryOperator }) {
  const id = useId()
  const [search, setSearch] = useState('')
  const [rows, setRows] = useState<Row[] | undefined>()
  const [error, setError] = useState<unknown>()
  const [chosen, setChosen] = useState<Row | undefined>()
  const [turn, setTurn] = useState(0)
  useTask(
    async stop => {
      setError(undefined)
      try {
        const query = new URLSearchParams({ pp: String(SHOWN), ...(search && { search }) }).toString()
        const answer = await at.call('GET', `/nodes?${query}`)
        const found = fieldOf(answer, 'result')
        if (!stop.aborted) setRows(Array.isArray(found) ? found.filter(isRow) : [])
      } catch (failed) {
        if (!stop.aborted) setError(failed)
      }
    },
    [search, turn]
  )
  return (
    <section class="card stack" aria-labelledby="records">
      <h2 id="records">{text.records}</h2>
      <div class="field">
        <label for={`${id}-search`}>{text.search}</label>
        <input id={`${id}-search`} class="input" type="search" value={search} onInput={event => setSearch(event.currentTarget.value)} />
      </div>
      {error !== undefined && <Failure error={error} />}
      {rows?.length === 0 && <p class="muted">{text.none}</p>}
      <ul class="lines">
        {(rows ?? []).map(row => {
          const name = oneLine(textOf(row, 'name'), 80)
          return (
            <li key={textOf(row, 'peer_id')} class="row between">
              <div class="grow">
                <strong>{name}</strong>{' '}
                <span class="small muted">
                  {dotted(oneLine(textOf(row, 'state'), 20), fieldOf(row, 'hidden') === true && text.hidden, `${brief(fieldOf(row, 'flows') ?? 0)} ${text.flows.toLowerCase()}`, text.seen.toLowerCase())}{' '}
                  <Time at={numberOf(row, 'seen_at')} />
                </span>
                {textOf(row, 'description') && <p class="small">{oneLine(textOf(row, 'description'), 300)}</p>}
                <p class="small muted mono">{oneLine(textOf(row, 'peer_id'), 80)}</p>
              </div>
              <button type="button" class="button small" aria-label={text.annotate(name)} onClick={() => setChosen(row)}>
                {text.annotateShort}
              </button>
            </li>
          )
        })}
      </ul>
      {chosen && <Annotate at={at} row={chosen} close={() => setChosen(undefined)} done={() => setTurn(before => before + 1)} />}
    </section>
  )
}

function Annotate({ at, row, close, done }: { at: RegistryOperator; row: Row; close: () => void; done: () => void }) {
  const id = useId()
  const [path, setPath] = useState('')
  const [tags, setTags] = useState('')
  const [description, setDescription] = useState('')
  const [hidden, setHidden] = useState(fieldOf(row, 'hidden') === true)
  const [discard, setDiscard] = useState(false)
  const [error, setError] = useState<unknown>()
  const save = async () => {
    setError(undefined)
    const listed = tags.split(',').map(each => each.trim()).filter(each => each !== '')
    const words = { ...(listed.length > 0 && { tags: listed }), ...(description && { description }), hidden: hidden ? true : null }
    try {
      await at.call(discard ? 'POST' : 'PUT', path ? '/flows' : '/nodes', { peer_id: textOf(row, 'peer_id'), words, ...(path && { path }) })
      announce(text.saved)
      done()
      close()
    } catch (failed) {
      setError(failed)
    }
  }
  return (
    <Dialog title={text.annotate(oneLine(textOf(row, 'name'), 80))} close={close}>
      <form
        class="form"
        onSubmit={event => {
          event.preventDefault()
          void save()
        }}
      >
        <p class="muted">{text.annotateText}</p>
        <div class="field">
          <label for={`${id}-path`}>{text.path}</label>
          <input id={`${id}-path`} class="input mono" autocomplete="off" value={path} onInput={event => setPath(event.currentTarget.value.trim())} />
        </div>
        <div class="field">
          <label for={`${id}-tags`}>{text.tags}</label>
          <input id={`${id}-tags`} class="input" autocomplete="off" value={tags} onInput={event => setTags(event.currentTarget.value)} />
        </div>
        <div class="field">
          <label for={`${id}-description`}>{text.description}</label>
          <textarea id={`${id}-description`} class="input" rows={3} value={description} onInput={event => setDescription(event.currentTarget.value)} />
        </div>
        <label class="check">
          <input type="checkbox" checked={hidden} onChange={event => setHidden(event.currentTarget.checked)} />
          {text.hide}
        </label>
        <label class="check">
          <input type="checkbox" checked={discard} onChange={event => setDiscard(event.currentTarget.checked)} />
          {text.discard}
        </label>
        {error !== undefined && <Failure error={error} />}
        <div class="row">
          <button type="submit" class="button main">
            {text.save}
          </button>
          <button type="button" class="button" onClick={close}>
            {say.cancel}
          </button>
        </div>
      </form>
    </Dialog>
  )
}
