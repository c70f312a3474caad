/** A form of one line: a label, a field and its button. */
import { useId, useState } from 'preact/hooks'
import { Failure } from './parts.tsx'

interface LineFormProps {
  label: string
  action: string
  send: (value: string) => Promise<unknown>
  hint?: string
  /** Ids and codes that are copied, not words. */
  mono?: boolean
  main?: boolean
  autocomplete?: 'off' | 'one-time-code'
}

/** What was sent leaves the field; a refusal is shown, and what was typed stays. */
export function LineForm({ label, action, send, hint, mono = false, main = false, autocomplete = 'off' }: LineFormProps) {
  const id = useId()
  const [value, setValue] = useState('')
  const [error, setError] = useState<unknown>()
  return (
    <form
      class="stack tight"
      onSubmit={event => {
        event.preventDefault()
        setError(undefined)
        send(value.trim()).then(() => setValue(''), setError)
      }}
    >
      <label for={id}>{label}</label>
      <div class="row">
        <input
          id={id}
          class={`input ${mono ? 'grow mono' : 'short'}`}
          autocomplete={autocomplete}
          spellcheck={false}
          placeholder={hint}
          value={value}
          onInput={event => setValue(event.currentTarget.value)}
        />
        <button type="submit" class={`button ${main ? 'main' : ''}`} disabled={value.trim() === ''}>
          {action}
        </button>
      </div>
      {error !== undefined && <Failure error={error} />}
    </form>
  )
}
