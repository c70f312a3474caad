/** One flow: what it does, its form, and the same for a terminal and for Python. */
import { useState } from 'preact/hooks'
import { fieldOf, isRow, numberOf, textOf, type Row, type Value } from '../../core/value.ts'
import { chosenNode, engine, findNode, nodeOf, patiently } from '../app.ts'
import { book, nameOf, remember } from '../book.ts'
import { Form } from '../form/form.tsx'
import { fieldFor } from '../form/schema.ts'
import { coded } from '../parts/coded.tsx'
import { PasteInputs } from './paste.tsx'
import { completed, withoutSecrets } from './prefill.ts'
import { DOT, exact, isTime, json, oneLine } from '../format.ts'
import { later } from '../parts/later.tsx'
import { CopyLine, Failure, Note, PageHead, Skeletons, useTask } from '../parts/parts.tsx'
import { host } from '../host.ts'
import { go, paths } from '../router.ts'
import { say } from '../texts.ts'
import { Login } from '../me/login.tsx'
import { CallError } from '../../core/errors.ts'

const text = say.flow

const ScheduleDialog = later(async () => (await import('./schedule.tsx')).ScheduleDialog)
const ManyRuns = later(async () => (await import('./many.tsx')).ManyRuns)
const InviteDialog = later(async () => (await import('./invite.tsx')).InviteDialog)

interface FlowPageProps {
  peerId: string
  path: string
  /** The fid of a run whose inputs the form begins with. */
  like: string | undefined
}

export function FlowPage({ peerId, path, like }: FlowPageProps) {
  const [told, setTold] = useState<Row | undefined>()
  const [earlier, setEarlier] = useState<Row | undefined>()
  const [error, setError] = useState<unknown>()
  const [turn, setTurn] = useState(0)
  useTask(
    async stop => {
      setError(undefined)
      try {
        await findNode(peerId, stop)
        const answer = await patiently(() => nodeOf(peerId).ask('flow.schema', { path }, { signal: stop }), stop)
        const run = like === undefined ? undefined : await patiently(() => nodeOf(peerId).ask('run.state', { fid: like }, { signal: stop }), stop)
        if (stop.aborted) return
        const inputs = run && fieldOf(run, 'inputs')
        if (inputs !== undefined && isRow(inputs)) setEarlier(withoutSecrets(inputs))
        setTold(answer)
      } catch (failed) {
        if (!stop.aborted) setError(failed)
      }
    },
    [peerId, path, like, turn]
  )
  if (error !== undefined)
    return (
      <>
        <PageHead title={oneLine(path, 160)} />
        <Failure error={error}>
          <button type="button" class="button small" onClick={() => setTurn(turn + 1)}>
            {say.retry}
          </button>
        </Failure>
        {error instanceof CallError && error.reason === 'login-needed' && <Login at={nodeOf(peerId)} done={() => setTurn(turn + 1)} />}
        <p>
          <a href={paths.flows()}>{text.back}</a>
        </p>
      </>
    )
  if (!told) return <Skeletons label={say.loading} rows={2} />
  return <Told peerId={peerId} path={path} told={told} earlier={earlier} />
}

function Told({ peerId, path, told, earlier }: { peerId: string; path: string; told: Row; earlier: Row | undefined }) {
  const node = nodeOf(peerId)
  const name = textOf(told, 'name') || path
  const given = fieldOf(told, 'schema')
  const schema = given !== undefined && isRow(given) ? given : {}
  const example = fieldOf(told, 'example')
  const hasExample = example !== undefined && isRow(example) && Object.keys(example).length > 0
  const [filled, setFilled] = useState<Row | undefined>(() => earlier && completed(schema, earlier))
  const [fills, setFills] = useState(0)
  /** What is asked further of what was filled in. */
  const [asked, setAsked] = useState<{ what: 'schedule' | 'invite' | 'many'; inputs: Value } | undefined>()
  const fill = (inputs: Row) => {
    setFilled(completed(schema, inputs))
    setFills(fills + 1)
  }
  const [key] = useState(() => crypto.randomUUID())
  const contents = fieldOf(told, 'contents_for')
  const roles = Array.isArray(contents) ? contents.map(String).join(', ') : ''
  const isEmpty = fieldFor(schema, schema, '').members.length === 0
  const published = numberOf(told, 'published')

  const launch = async (inputs: Value) => {
    const answer = await (await chosenNode(peerId)).ask('run.launch', { path, inputs, key, strict: true })
    const fid = textOf(answer, 'fid')
    remember(peerId, '', [], { used: true })
    await engine().knownRuns.remember(fid, { peerId, addrs: book.peek().get(peerId)?.addrs ?? [] })
    go(paths.run(peerId, fid))
  }

  return (
    <>
      <PageHead title={oneLine(name, 160)}>
        <p>
          {text.node}{' '}
          <a href={paths.flows('', peerId)}>{oneLine(nameOf(peerId), 80)}</a>
          {textOf(told, 'organization') && `${DOT}${oneLine(textOf(told, 'organization'), 80)}`}
        </p>
      </PageHead>
      {asked?.what === 'schedule' && <ScheduleDialog {...{ peerId, path, name }} inputs={asked.inputs} close={() => setAsked(undefined)} />}
      {asked?.what === 'invite' && <InviteDialog {...{ peerId, path, name }} inputs={asked.inputs} close={() => setAsked(undefined)} />}
      {asked?.what === 'many' && <ManyRuns {...{ peerId, path, schema }} common={isRow(asked.inputs) ? asked.inputs : {}} close={() => setAsked(undefined)} />}
      <div class="two">
        <section class="card stack" aria-labelledby="inputs">
          <h2 id="inputs">{text.inputs}</h2>
          {isEmpty && <p class="muted">{text.noInputs}</p>}
          {roles && <Note kind="warn">{<p>{text.contents(roles)}</p>}</Note>}
          {earlier && fills === 0 && <Note kind="info">{<p>{text.like}</p>}</Note>}
          <Form
            key={fills}
            schema={schema}
            name={name}
            initial={filled}
            node={node}
            action={text.launch}
            send={launch}
            others={[
              { action: say.schedule.act, send: inputs => setAsked({ what: 'schedule', inputs }) },
              ...(isEmpty ? [] : [{ action: say.many.act, partial: true, send: (inputs: Value) => setAsked({ what: 'many', inputs }) }]),
              { action: say.invite.act, partial: true, send: inputs => setAsked({ what: 'invite', inputs }) }
            ]}
            aside={
              hasExample && filled === undefined ? (
                <button type="button" class="button plain" onClick={() => fill(example)}>
                  {text.example}
                </button>
              ) : null
            }
          />
          {!isEmpty && <PasteInputs fill={fill} />}
          <p class="small muted">{text.private}</p>
        </section>
        <div class="stack">
          {textOf(told, 'description') && (
            <section class="card stack tight">
              <p class="description">{textOf(told, 'description').slice(0, 8192)}</p>
              <dl class="facts">
                {textOf(told, 'author') && (
                  <>
                    <dt>{text.by}</dt>
                    <dd>{oneLine(textOf(told, 'author'), 120)}</dd>
                  </>
                )}
                {textOf(told, 'release') && (
                  <>
                    <dt>{text.release}</dt>
                    <dd>{oneLine(textOf(told, 'release'), 64)}</dd>
                  </>
                )}
                {isTime(published) && (
                  <>
                    <dt>{text.published}</dt>
                    <dd>{exact(published)}</dd>
                  </>
                )}
                <dt>{text.path}</dt>
                <dd class="mono">{oneLine(path, 512)}</dd>
                <dt>{text.peer}</dt>
                <dd class="mono">{peerId}</dd>
              </dl>
            </section>
          )}
          <Elsewhere peerId={peerId} node={book.peek().get(peerId)?.name || peerId} path={path} example={hasExample ? example : {}} />
        </div>
      </div>
    </>
  )
}

const shellWord = (word: string): string => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`)

/** Return a value as Python writes it. */
function pythonValue(value: Value): string {
  if (value === null) return 'None'
  if (typeof value === 'boolean') return value ? 'True' : 'False'
  if (Array.isArray(value)) return `[${value.map(pythonValue).join(', ')}]`
  if (isRow(value)) return `{${Object.entries(value).map(([key, each]) => `${json(key, 0)}: ${pythonValue(each)}`).join(', ')}}`
  return json(value, 0)
}

/** Commands to copy. Every word in them that a node said is quoted. */
function Elsewhere({ peerId, node, path, example }: { peerId: string; node: string; path: string; example: Row }) {
  const [opened, setOpened] = useState(false)
  const flow = `${node}/${path}`
  const words = Object.entries(example).map(([key, value]) => shellWord(`${key}=${typeof value === 'string' ? value : json(value, 0)}`))
  const koco = ['koco run', shellWord(flow), ...words].join(' ')
  const python = `run = await kodo.launch(${json(flow, 0)}, inputs=${pythonValue(example)})`
  return (
    <details class="card" onToggle={event => event.currentTarget.open && setOpened(true)}>
      <summary>{text.same}</summary>
      <div class="stack">
        <div class="stack tight">
          <h3>{text.koco}</h3>
          <CopyLine text={oneLine(koco, 4000)} label={text.koco} />
        </div>
        <div class="stack tight">
          <h3>{text.python}</h3>
          <CopyLine text={oneLine(python, 4000)} label={text.python} />
        </div>
        {opened && <Assistant peerId={peerId} path={path} />}
      </div>
    </details>
  )
}

/** What assistants and editors are told, by the server of the page, which knows where `koco` is; else the command that prints it. */
function Assistant({ peerId, path }: { peerId: string; path: string }) {
  const { configs } = host.value
  const [texts, setTexts] = useState<Map<string, string> | undefined>()
  const [chosen, setChosen] = useState<string | undefined>()
  const [error, setError] = useState<unknown>()
  useTask(
    async stop => {
      setError(undefined)
      try {
        const found = await configs?.(peerId, path, stop)
        if (!stop.aborted) setTexts(found)
      } catch (failed) {
        if (!stop.aborted) setError(failed)
      }
    },
    [configs, peerId, path]
  )
  const names = [...(texts?.keys() ?? [])]
  const name = chosen ?? names[0]
  // A glob that fits this path alone.
  const only = path.replace(/[*?[]/g, '[$&]')
  return (
    <div class="stack tight">
      <h3>{text.assistant}</h3>
      {error !== undefined && <Failure error={error} />}
      {configs === undefined && (
        <>
          <p class="small muted">{text.assistantCommand}</p>
          <CopyLine text={`koco mcp --print-config claude --node ${peerId} --flow ${shellWord(only)}`} label={text.assistant} />
        </>
      )}
      {name !== undefined && (
        <>
          <div class="field">
            <label for="assistant">{text.assistantHost}</label>
            <select id="assistant" class="input" value={name} onChange={event => setChosen(event.currentTarget.value)}>
              {names.map(each => (
                <option key={each} value={each}>
                  {fieldOf(text.assistantHosts, each) ?? each}
                </option>
              ))}
            </select>
          </div>
          <CopyLine text={texts?.get(name)?.trimEnd() ?? ''} label={text.assistant} wraps />
          <p class="small muted">{coded(text.assistantText)}</p>
        </>
      )}
    </div>
  )
}
