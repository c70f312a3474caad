/** Me: this browser's identity, the nodes it knows, and how the page looks. */
import { useId, useState } from 'preact/hooks'
import { textOf, type Row } from '../../core/value.ts'
import type { Logins, Pin } from '../../net/api.ts'
import { announce, engine, loginFailure, nodeOf } from '../app.ts'
import { book, forget, shortId } from '../book.ts'
import { oneLine } from '../format.ts'
import { Confirm, CopyLine, Failure, PageHead, Time, useTask } from '../parts/parts.tsx'
import { say } from '../texts.ts'
import { setTheme, theme } from '../theme.ts'
import { LockCard } from './lock.tsx'
import { Login, waysOf } from './login.tsx'

const text = say.meText
const MIN_PASSWORD = 12

export function MePage() {
  const [peerId, setPeerId] = useState('')
  const [pins, setPins] = useState<Pin[]>([])
  const [turn, setTurn] = useState(0)
  const again = () => setTurn(turn + 1)
  useTask(
    async stop => {
      const [me, known] = await Promise.all([engine().identity.peerId(), engine().pins.list()])
      if (stop.aborted) return
      setPeerId(me)
      setPins(known)
    },
    [turn]
  )
  const used = [...book.value.values()].filter(each => each.at > 0)
  return (
    <>
      <PageHead title={text.title}>
        <p>{text.text}</p>
      </PageHead>
      {loginFailure.value !== undefined && <Failure error={loginFailure.value} />}
      <section class="card stack tight" aria-labelledby="peer">
        <h2 id="peer">{text.peer}</h2>
        <CopyLine text={peerId} label={text.peer} />
        <p class="small muted">{text.peerAbout}</p>
      </section>
      <section class="card stack tight" aria-labelledby="logins">
        <h2 id="logins">{text.logins}</h2>
        <p class="small muted">{text.loginsAbout}</p>
        {used.length + engine().registries.length === 0 && <p class="muted">{text.none}</p>}
        <ul class="lines">
          {engine().registries.map(each => (
            <Account key={each.url} at={each} name={each.url} />
          ))}
          {used.slice(0, 30).map(each => (
            <Account key={each.peerId} at={nodeOf(each.peerId)} name={each.name || shortId(each.peerId)} forget={() => forget(each.peerId)} />
          ))}
        </ul>
      </section>
      <section class="card stack tight" aria-labelledby="pins">
        <h2 id="pins">{text.pins}</h2>
        <p class="small muted">{text.pinsAbout}</p>
        {pins.length === 0 && <p class="muted">{text.noPins}</p>}
        <ul class="lines">
          {pins.map(pin => (
            <li key={pin.name} class="row between">
              <div class="grow">
                <strong>{oneLine(pin.name, 80)}</strong>
                <p class="small muted mono">{pin.peerId}</p>
              </div>
              <span class="small muted">
                <Time at={pin.since} />
              </span>
              <button
                type="button"
                class="button small"
                aria-label={text.removePin(oneLine(pin.name, 40))}
                onClick={() => {
                  void engine().pins.remove(pin.name).then(again)
                }}
              >
                {text.forgetShort}
              </button>
            </li>
          ))}
        </ul>
      </section>
      <section class="card stack tight" aria-labelledby="theme">
        <h2 id="theme">{text.theme}</h2>
        <div class="chips" role="group" aria-labelledby="theme">
          {Object.entries(text.themes).map(([key, word]) => (
            <button key={key} type="button" class="chip" aria-pressed={theme.value === key} onClick={() => setTheme(key)}>
              {word}
            </button>
          ))}
        </div>
      </section>
      <Move peerId={peerId} again={again} />
      <LockCard peerId={peerId} />
    </>
  )
}

/** As whom one place knows this browser, and logging in and out there. */
export function Account({ at, name, forget }: { at: { readonly logins: Logins }; name: string; forget?: () => void }) {
  const [who, setWho] = useState<Row | undefined>()
  const [canLogin, setCanLogin] = useState(false)
  const [open, setOpen] = useState(false)
  const [error, setError] = useState<unknown>()
  const [turn, setTurn] = useState(0)
  useTask(
    async stop => {
      setError(undefined)
      try {
        const info = await at.logins.info()
        const found = await at.logins.whoami().catch(() => undefined)
        if (stop.aborted) return
        setCanLogin(waysOf(info).length > 0)
        setWho(found)
      } catch (failed) {
        if (!stop.aborted) setError(failed)
      }
    },
    [at, turn]
  )
  const user = who ? textOf(who, 'user') : ''
  return (
    <li class="stack tight">
      <div class="row between">
        <div class="grow">
          <strong>{oneLine(name, 80)}</strong>{' '}
          <span class="small muted">{error !== undefined ? say.away : user ? oneLine(user, 80) : canLogin ? text.guest : ''}</span>
        </div>
        <div class="row">
          {canLogin && !user && (
            <button type="button" class="button small" aria-expanded={open} onClick={() => setOpen(!open)}>
              {text.login}
            </button>
          )}
          {user && (
            <button type="button" class="button small" onClick={() => void at.logins.logout().then(() => setTurn(turn + 1), setError)}>
              {text.logout}
            </button>
          )}
          {forget && (
            <button type="button" class="button small" aria-label={text.forget(oneLine(name, 40))} onClick={forget}>
              {text.forgetShort}
            </button>
          )}
        </div>
      </div>
      {open && (
        <Login
          at={at}
          done={() => {
            setOpen(false)
            setTurn(turn + 1)
          }}
        />
      )}
    </li>
  )
}

/** Another identity: one that can be moved, or that of a backup. */
function Move({ peerId, again }: { peerId: string; again: () => void }) {
  const id = useId()
  const [password, setPassword] = useState('')
  const [file, setFile] = useState<File | undefined>()
  const [opening, setOpening] = useState('')
  const [error, setError] = useState<unknown>()
  const [asked, setAsked] = useState(false)
  const [movable, setMovable] = useState(false)
  useTask(
    async stop => {
      const can = await engine().identity.movable()
      if (!stop.aborted) setMovable(can)
    },
    [peerId]
  )
  const save = (backup: string) => {
    const url = URL.createObjectURL(new Blob([backup], { type: 'application/json' }))
    const link = document.createElement('a')
    link.href = url
    link.download = 'kodo-identity.json'
    link.click()
    setTimeout(() => URL.revokeObjectURL(url), 60_000)
  }
  const restore = async () => {
    setError(undefined)
    try {
      const me = await engine().identity.restore(await (file as File).text(), opening)
      announce(`${text.restored} ${me}`)
      again()
    } catch (failed) {
      setError(failed)
    }
  }
  return (
    <section class="card stack" aria-labelledby="move">
      <h2 id="move">{text.move}</h2>
      <p class="muted">{text.moveAbout}</p>
      {error !== undefined && <Failure error={error} />}
      <div class="two">
        <form
          class="stack tight"
          onSubmit={event => {
            event.preventDefault()
            if (password.length >= MIN_PASSWORD) setAsked(true)
          }}
        >
          <label for={`${id}-new`}>{text.password}</label>
          <input id={`${id}-new`} class="input" type="password" autocomplete="new-password" aria-describedby={`${id}-about`} value={password} onInput={event => setPassword(event.currentTarget.value)} />
          <p id={`${id}-about`} class="about">
            {text.passwordAbout}
          </p>
          <div class="row">
            <button type="submit" class="button" disabled={password.length < MIN_PASSWORD}>
              {text.create}
            </button>
            {movable && (
              <button type="button" class="button" onClick={() => void engine().identity.backup().then(save, setError)}>
                {text.backup}
              </button>
            )}
          </div>
        </form>
        <form
          class="stack tight"
          onSubmit={event => {
            event.preventDefault()
            if (file) void restore()
          }}
        >
          <label for={`${id}-file`}>{text.restoreFile}</label>
          <input id={`${id}-file`} type="file" accept="application/json,.json" onChange={event => setFile(event.currentTarget.files?.[0])} />
          <label for={`${id}-old`}>{text.password}</label>
          <input id={`${id}-old`} class="input" type="password" autocomplete="current-password" value={opening} onInput={event => setOpening(event.currentTarget.value)} />
          <div class="row">
            <button type="submit" class="button" disabled={!file || opening === ''}>
              {text.restoreAct}
            </button>
          </div>
        </form>
      </div>
      {asked && (
        <Confirm
          title={text.createTitle}
          text={text.createText}
          action={text.create}
          close={() => setAsked(false)}
          act={async () => {
            save(await engine().identity.createMovable(password))
            setPassword('')
            again()
          }}
        />
      )}
    </section>
  )
}
