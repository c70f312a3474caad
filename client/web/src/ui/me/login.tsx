/** Logging in to one node, in the ways that it takes. */
import { useId, useState } from 'preact/hooks'
import { fieldOf, isRow, textOf, type Row } from '../../core/value.ts'
import type { NodeClient } from '../../net/api.ts'
import { Failure, useTask } from '../parts/parts.tsx'
import { say } from '../texts.ts'

const text = say.meText

export function Login({ node, done }: { node: NodeClient; done: () => void }) {
  const id = useId()
  const [ways, setWays] = useState<string[] | undefined>()
  const [code, setCode] = useState('')
  const [name, setName] = useState('')
  const [password, setPassword] = useState('')
  const [error, setError] = useState<unknown>()
  const [busy, setBusy] = useState(false)
  useTask(
    async stop => {
      const info = await node.logins.info()
      if (!stop.aborted) setWays(waysOf(info))
    },
    [node]
  )
  const log = async (act: () => Promise<Row>) => {
    setBusy(true)
    setError(undefined)
    try {
      await act()
      done()
    } catch (failed) {
      setError(failed)
    } finally {
      setBusy(false)
    }
  }
  if (!ways) return <p class="muted">{say.loading}</p>
  const [byCode, byPassword] = [ways.includes('enrol'), ways.includes('password')]
  if (!byCode && !byPassword) return <p class="muted">{text.noWay}</p>
  return (
    <div class="stack">
      {byCode && (
        <form
          class="stack tight"
          onSubmit={event => {
            event.preventDefault()
            void log(() => node.logins.code(code))
          }}
        >
          <label for={`${id}-code`}>{text.code}</label>
          <div class="row">
            <input id={`${id}-code`} class="input short" autocomplete="one-time-code" aria-describedby={`${id}-about`} value={code} onInput={event => setCode(event.currentTarget.value)} />
            <button type="submit" class="button main" disabled={busy || code.trim() === ''}>
              {text.login}
            </button>
          </div>
          <p id={`${id}-about`} class="about">
            {text.codeAbout}
          </p>
        </form>
      )}
      {byPassword && (
        <form
          class="stack tight"
          onSubmit={event => {
            event.preventDefault()
            void log(() => node.logins.password(name, password))
          }}
        >
          <label for={`${id}-name`}>{text.user}</label>
          <input id={`${id}-name`} class="input" autocomplete="username" value={name} onInput={event => setName(event.currentTarget.value)} />
          <label for={`${id}-password`}>{text.password}</label>
          <input id={`${id}-password`} class="input" type="password" autocomplete="current-password" value={password} onInput={event => setPassword(event.currentTarget.value)} />
          <div class="row">
            <button type="submit" class="button" disabled={busy || name === '' || password === ''}>
              {text.login}
            </button>
          </div>
        </form>
      )}
      {error !== undefined && <Failure error={error} />}
    </div>
  )
}

/** The ways to log in that `auth.info` names. */
export function waysOf(info: Row): string[] {
  const login = fieldOf(info, 'login')
  if (!Array.isArray(login)) return []
  return login.map(way => (isRow(way) ? textOf(way, 'way') : typeof way === 'string' ? way : ''))
}
