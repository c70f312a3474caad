/** Logging in to one node or registry, in the ways that it takes. */
import { useId, useState } from 'preact/hooks'
import { fieldOf, isRow, textOf, type Row } from '../../core/value.ts'
import { type Terms, termsOf } from '../../core/oidc.ts'
import type { Logins } from '../../net/api.ts'
import { engine } from '../app.ts'
import { oneLine } from '../format.ts'
import { coded } from '../parts/coded.tsx'
import { Failure, useTask } from '../parts/parts.tsx'
import { say } from '../texts.ts'

const text = say.meText

export function Login({ at, done }: { at: { readonly logins: Logins }; done: () => void }) {
  const id = useId()
  const [ways, setWays] = useState<string[] | undefined>()
  const [terms, setTerms] = useState<Terms | undefined>()
  const [code, setCode] = useState('')
  const [name, setName] = useState('')
  const [password, setPassword] = useState('')
  const [error, setError] = useState<unknown>()
  const [busy, setBusy] = useState(false)
  useTask(
    async stop => {
      const info = await at.logins.info()
      if (stop.aborted) return
      setWays(waysOf(info))
      setTerms(termsOf(info))
    },
    [at]
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
  const byIssuer = ways.includes('oidc') && terms !== undefined
  if (!byCode && !byPassword && !byIssuer) return <p class="muted">{text.noWay}</p>
  return (
    <div class="stack">
      {byIssuer && <AtIssuer at={at} terms={terms} />}
      {byCode && (
        <form
          class="stack tight"
          onSubmit={event => {
            event.preventDefault()
            void log(() => at.logins.code(code))
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
            void log(() => at.logins.password(name, password))
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

/** The person sees for what they log in where; the password is for the issuer's own page. */
function AtIssuer({ at, terms }: { at: { readonly logins: Logins }; terms: Terms }) {
  const [error, setError] = useState<unknown>()
  const isPossible = engine().issuerLogin.isPossible(terms.issuer)
  return (
    <div class="stack tight">
      <p>{text.issuerText}</p>
      <dl class="facts">
        <dt>{text.issuer}</dt>
        <dd class="mono">{oneLine(terms.issuer, 200)}</dd>
        <dt>{text.audience}</dt>
        <dd class="mono">{oneLine(terms.audience, 200)}</dd>
        <dt>{text.client}</dt>
        <dd class="mono">{oneLine(terms.clientId, 200)}</dd>
      </dl>
      {isPossible ? (
        <div class="row">
          <button type="button" class="button main" onClick={() => void engine().issuerLogin.begin(at.logins.place, terms).then(url => location.assign(url), setError)}>
            {text.atIssuer(oneLine(new URL(terms.issuer).host, 80))}
          </button>
        </div>
      ) : (
        <p class="muted">{coded(text.noIssuer)}</p>
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
