/** Inputs pasted as JSON, in place of what the form has. */
import { useId, useState } from 'preact/hooks'
import type { Row } from '../../core/value.ts'
import { say } from '../texts.ts'
import { pasted } from './prefill.ts'

const text = say.flow

export function PasteInputs({ fill }: { fill: (inputs: Row) => void }) {
  const [typed, setTyped] = useState('')
  const [isWrong, setIsWrong] = useState(false)
  const id = useId()
  const take = () => {
    try {
      fill(pasted(typed))
      setIsWrong(false)
    } catch {
      setIsWrong(true)
    }
  }
  return (
    <details>
      <summary>{text.paste}</summary>
      <div class="stack tight">
        <label class="unseen" for={id}>
          {text.paste}
        </label>
        <textarea
          id={id}
          class="input mono"
          rows={4}
          spellcheck={false}
          placeholder={'{"name": "value"}'}
          aria-invalid={isWrong}
          aria-describedby={isWrong ? `${id}-fault` : undefined}
          value={typed}
          onInput={event => setTyped(event.currentTarget.value)}
        />
        {isWrong && (
          <p id={`${id}-fault`} class="fault">
            {text.noObject}
          </p>
        )}
        <div class="row">
          <button type="button" class="button small" disabled={typed.trim() === ''} onClick={take}>
            {text.fill}
          </button>
        </div>
      </div>
    </details>
  )
}
