/** JSON as a tree, CSV as a table: made of elements, a part at a time. */
import { useState } from 'preact/hooks'
import { isRow, type Value } from '../../core/value.ts'
import { brief } from '../format.ts'
import { say } from '../texts.ts'
import { readCsv } from './csv.ts'

const MOST_AT_ONCE = 200

/** Show a value as a tree; what is deep inside is made when it is opened. */
export function Tree({ value, name, open = true }: { value: Value; name?: string; open?: boolean }) {
  const [shown, setShown] = useState(MOST_AT_ONCE)
  const [isOpen, setOpen] = useState(open)
  const label = name === undefined ? null : <span class="key">{brief(name, 200)}</span>
  const isList = Array.isArray(value)
  if (!isList && !isRow(value))
    return (
      <div class="leaf">
        {label} <span class={typeof value === 'string' ? 'text' : 'value'}>{typeof value === 'string' ? value.slice(0, 100_000) : brief(value, 1000)}</span>
      </div>
    )
  const entries: [string, Value][] = isList ? value.slice(0, shown).map((each, index) => [String(index), each]) : Object.entries(value).slice(0, shown)
  const count = isList ? value.length : Object.keys(value).length
  return (
    <details class="tree" open={isOpen} onToggle={event => setOpen(event.currentTarget.open)}>
      <summary>
        {label} <span class="muted">{isList ? say.show.elements(count) : say.show.fields(count)}</span>
      </summary>
      {isOpen && (
        <div class="tree-inner">
          {entries.map(([key, each]) => (
            <Tree key={key} name={key} value={each} open={false} />
          ))}
          {count > shown && (
            <button type="button" class="button plain small" onClick={() => setShown(shown + MOST_AT_ONCE)}>
              {say.more}
            </button>
          )}
        </div>
      )}
    </details>
  )
}

/** Show separated values as a table; the first row is its head. */
export function Csv({ text }: { text: string }) {
  const [most, setMost] = useState(MOST_AT_ONCE)
  const [head = [], ...rows] = readCsv(text, most + 2)
  const shown = rows.slice(0, most)
  return (
    <div class="stack tight">
      <div class="scroll tall" tabIndex={0} role="group" aria-label={say.show.table}>
        <table class="table">
          <thead>
            <tr>
              {head.map((cell, index) => (
                <th key={index} scope="col">
                  {brief(cell, 200)}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {shown.map((row, index) => (
              <tr key={index}>
                {head.map((_, column) => (
                  <td key={column}>{brief(row[column], 500)}</td>
                ))}
              </tr>
            ))}
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
