/** The lock of this browser's key: the page that asks for its password, and where it is put on and taken off. */
import { useId, useState } from 'preact/hooks'
import { announce, engine, lockState } from '../app.ts'
import { Confirm, Failure, PageHead, useTask } from '../parts/parts.tsx'
import { say } from '../texts.ts'

const text = say.lock

/** A password and what is done with it; one that is wrong is told, and stays to be mended. */
function Password({ actions }: { actions: readonly { word: string; act: (password: string) => Promise<void>; main?: boolean }[] }) {
  const id = useId()
  const [password, setPassword] = useState('')
  const [error, setError] = useState<unknown>()
  const [busy, setBusy] = useState(false)
  const run = async (act: (password: string) => Promise<void>) => {
    setBusy(true)
    setError(undefined)
    try {
      await act(password)
      setPassword('')
    } catch (failed) {
      setError(failed)
    } finally {
      setBusy(false)
    }
  }
  const [first] = actions
  return (
    <form
      class="stack tight"
      onSubmit={event => {
        event.preventDefault()
        if (first && password !== '') void run(first.act)
      }}
    >
      <label for={id}>{text.password}</label>
      <input id={id} class="input" type="password" autocomplete="current-password" value={password} onInput={event => setPassword(event.currentTarget.value)} />
      {error !== undefined && <Failure error={error} />}
      <div class="row">
        {actions.map(({ word, act, main }, index) => (
          <button
            key={word}
            type={index === 0 ? 'submit' : 'button'}
            class={`button ${main ? 'main' : ''}`}
            disabled={busy || password === ''}
            {...(index > 0 && { onClick: () => void run(act) })}
          >
            {word}
          </button>
        ))}
      </div>
    </form>
  )
}

/** Stands in the place of every page while the key is locked. */
export function LockedPage() {
  const [asked, setAsked] = useState(false)
  return (
    <>
      <PageHead title={text.title}>
        <p>{text.text}</p>
      </PageHead>
      <section class="card stack" aria-label={text.unlock}>
        <Password actions={[{ word: text.unlock, main: true, act: password => engine().identity.unlock(password) }]} />
        <details>
          <summary>{text.forgot}</summary>
          <div class="stack tight">
            <p class="muted">{text.forgotText}</p>
            <div class="row">
              <button type="button" class="button danger" onClick={() => setAsked(true)}>
                {text.forget}
              </button>
            </div>
          </div>
        </details>
      </section>
      {asked && <Confirm title={text.forgetTitle} text={text.forgotText} action={text.forget} close={() => setAsked(false)} act={() => engine().identity.forget()} />}
    </>
  )
}

/** On *Me*: put the lock on, use it, take it off. */
export function LockCard({ peerId }: { peerId: string }) {
  const [movable, setMovable] = useState(false)
  useTask(
    async stop => {
      const can = await engine().identity.movable()
      if (!stop.aborted) setMovable(can)
    },
    [peerId]
  )
  const { identity } = engine()
  return (
    <section class="card stack" aria-labelledby="lock">
      <h2 id="lock">{text.card}</h2>
      <p class="muted">{text.about}</p>
      {!movable && <p class="muted">{text.first}</p>}
      {movable && lockState.value === 'open' && (
        <Password
          actions={[
            {
              word: text.lock,
              act: async password => {
                await identity.lock(password)
                announce(text.locked)
              }
            }
          ]}
        />
      )}
      {lockState.value === 'unlocked' && (
        <>
          <div class="row between">
            <p>{text.locked}</p>
            <button type="button" class="button" onClick={() => identity.lockNow()}>
              {text.now}
            </button>
          </div>
          <Password actions={[{ word: text.stop, act: password => identity.removeLock(password) }]} />
        </>
      )}
    </section>
  )
}
