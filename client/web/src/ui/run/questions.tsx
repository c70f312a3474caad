/** The region *Questions*: each open lock as a form. */
import { useEffect, useRef, useState } from 'preact/hooks'
import { CallError } from '../../core/errors.ts'
import type { NodeClient, OpenLock } from '../../net/api.ts'
import { announce } from '../app.ts'
import { Form } from '../form/form.tsx'
import { DOT, oneLine } from '../format.ts'
import { Note, Time } from '../parts/parts.tsx'
import { say } from '../texts.ts'

const text = say.run

interface QuestionsProps {
  node: NodeClient
  fid: string
  locks: readonly OpenLock[]
  over: boolean
  /** The question that the address leads to: it is shown first, and has the focus. */
  wanted: string | undefined
  /** Whether all questions that are open are known. */
  isRead: boolean
}

export function Questions({ node, fid, locks, over, wanted, isRead }: QuestionsProps) {
  const known = useRef(new Map<string, string>())
  const mine = useRef(new Set<string>())
  const [notices, setNotices] = useState<readonly string[]>([])

  const tellAnswered = () => {
    // Beside what became of an answer given here, which may be of another question.
    setNotices(told => [...told.filter(each => each !== text.answeredElsewhere), text.answeredElsewhere])
    announce(text.answeredElsewhere)
  }

  useEffect(() => {
    const open = new Set(locks.map(lock => lock.lid))
    for (const lid of known.current.keys())
      if (!open.has(lid)) {
        known.current.delete(lid)
        if (!mine.current.has(lid)) tellAnswered()
      }
    for (const lock of locks)
      if (!known.current.has(lock.lid)) {
        known.current.set(lock.lid, lock.title)
        announce(text.asked(oneLine(lock.title, 300)))
      }
  }, [locks.map(lock => lock.lid).join()])

  const [met, setMet] = useState<string | undefined>()
  const meets = wanted !== undefined && locks.some(lock => lock.lid === wanted)
  // Until all is read, a question may be open only because its answer has not been read yet.
  const isMet = meets && isRead
  useEffect(() => {
    if (isMet) setMet(wanted)
  }, [isMet, wanted])
  const isGone = wanted !== undefined && isRead && !meets && met !== wanted
  const shown = [...locks.filter(lock => lock.lid === wanted), ...locks.filter(lock => lock.lid !== wanted)]

  // A run that ends with the answer says so all the same.
  if (over && locks.length === 0 && notices.length === 0 && !isGone) return null
  return (
    <section class={`card stack ${locks.length > 0 ? 'asking' : ''}`} aria-labelledby="questions">
      <h2 id="questions">{text.questions}</h2>
      {locks.length === 0 && notices.length === 0 && !isGone && <p class="muted">{text.noQuestions}</p>}
      {notices.map(notice => (
        <Note key={notice}>{<p>{notice}</p>}</Note>
      ))}
      {isGone && <Note kind="warn">{<p>{text.gone}</p>}</Note>}
      {shown.slice(0, 50).map(lock => (
        <Question
          key={lock.lid}
          node={node}
          fid={fid}
          lock={lock}
          isWanted={lock.lid === wanted}
          sent={ours => {
            if (ours) mine.current.add(lock.lid)
            else mine.current.delete(lock.lid)
            // The question went before this answer was refused.
            if (!ours && !known.current.has(lock.lid)) tellAnswered()
          }}
          answered={() => {
            setNotices([text.answered])
            announce(text.answered)
          }}
        />
      ))}
    </section>
  )
}

interface QuestionProps {
  node: NodeClient
  fid: string
  lock: OpenLock
  isWanted: boolean
  sent: (ours: boolean) => void
  answered: () => void
}

function Question({ node, fid, lock, isWanted, sent, answered }: QuestionProps) {
  // One key for one answer: sent again after a lost session it is the same answer, never a second one.
  const key = useRef<{ of: string; key: string }>({ of: '', key: '' })
  const shown = useRef<HTMLElement>(null)
  useEffect(() => {
    if (!isWanted) return
    // It is the first, so its section's heading is seen with it.
    shown.current?.closest('section')?.scrollIntoView({ block: 'start' })
    shown.current?.querySelector<HTMLElement>('form :is(input, select, textarea, button):not(:disabled)')?.focus({ preventScroll: true })
  }, [isWanted])
  const narrowed = [...lock.roles, ...lock.users]
  return (
    <article ref={shown} class="stack question" aria-label={oneLine(lock.title, 300)}>
      <div>
        <h3>{oneLine(lock.title, 4096)}</h3>
        <p class="small muted">
          {text.answerHint} <Time at={lock.expiresAt} />
          {narrowed.length > 0 && `${DOT}${text.notForYou} ${oneLine(narrowed.join(', '), 200)}`}
        </p>
      </div>
      {lock.candidate !== undefined && <p class="muted">{text.judged}</p>}
      <Form
        schema={lock.schema}
        name={oneLine(lock.title, 200)}
        initial={lock.hasDefault ? lock.default : undefined}
        node={node}
        action={text.answer}
        disabled={lock.candidate !== undefined}
        send={async candidate => {
          const of = JSON.stringify(candidate, (_, each: unknown) => (typeof each === 'bigint' ? `${each}n` : each))
          if (key.current.of !== of) key.current = { of, key: crypto.randomUUID() }
          sent(true)
          try {
            await node.call('lock.answer', { fid, lid: lock.lid, candidate, key: key.current.key }, { timeout: (lock.verdictS + 30) * 1000 })
            answered()
          } catch (error) {
            sent(false)
            // The same answer may be given once more after a refusal.
            if (error instanceof CallError) key.current = { of: '', key: '' }
            throw error
          }
        }}
      />
    </article>
  )
}
