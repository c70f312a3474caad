/** What stands around every page: navigation, what is told to screen readers, what the browser lacks. */
import { useEffect, useState } from 'preact/hooks'
import { announced, engine, lockState } from './app.ts'
import { FlowPage } from './flows/flow.tsx'
import { FlowsPage } from './flows/flows.tsx'
import { waiting } from './inbox/state.ts'
import { LinkPage } from './link/link.tsx'
import { coded } from './parts/coded.tsx'
import { Mark } from './parts/icons.tsx'
import { later } from './parts/later.tsx'
import { Empty, Note, useTask } from './parts/parts.tsx'
import { paths, route, type Route } from './router.ts'
import { RunPage } from './run/run.tsx'
import { say } from './texts.ts'
import type { Capabilities } from '../net/api.ts'

const RunsPage = later(async () => (await import('./runs/page.tsx')).RunsPage)
const SchedulesPage = later(async () => (await import('./runs/schedules.tsx')).SchedulesPage)
const InvitationsPage = later(async () => (await import('./runs/invitations.tsx')).InvitationsPage)
const InboxPage = later(async () => (await import('./inbox/page.tsx')).InboxPage)
const MePage = later(async () => (await import('./me/me.tsx')).MePage)
const LockedPage = later(async () => (await import('./me/lock.tsx')).LockedPage)
const NodesPage = later(async () => (await import('./nodes/page.tsx')).NodesPage)
const RegistryPage = later(async () => (await import('./registry/page.tsx')).RegistryPage)
const NodePage = later(async () => (await import('./nodes/node.tsx')).NodePage)

function Page({ at }: { at: Route }) {
  switch (at.page) {
    case 'flows':
      return <FlowsPage key={at.node ?? ''} search={at.search} node={at.node} />
    case 'flow':
      return <FlowPage key={`${at.node} ${at.path} ${at.like ?? ''}`} peerId={at.node} path={at.path} like={at.like} />
    case 'run':
      return <RunPage key={`${at.node} ${at.fid}`} node={at.node} fid={at.fid} lock={at.lock} />
    case 'link':
      return <LinkPage key={at.fid} fid={at.fid} run={at.run} />
    case 'runs':
      return <RunsPage key={at.tag ?? ''} tag={at.tag} />
    case 'schedules':
      return <SchedulesPage />
    case 'invitations':
      return <InvitationsPage />
    case 'inbox':
      return <InboxPage />
    case 'me':
      return <MePage />
    case 'nodes':
      return <NodesPage />
    case 'registry':
      return <RegistryPage />
    case 'node':
      return <NodePage key={at.node} peerId={at.node} />
    case 'unknown':
      return (
        <Empty title={say.unknownPage.title}>
          <p>{say.unknownPage.text}</p>
          <p>
            <a href={paths.flows()}>{say.unknownPage.link}</a>
          </p>
        </Empty>
      )
  }
}

const TABS: { href: string; word: string; pages: Route['page'][]; end?: boolean }[] = [
  { href: paths.flows(), word: say.flows, pages: ['flows', 'flow'] },
  { href: paths.runs(), word: say.runs, pages: ['runs', 'run', 'schedules', 'invitations'] },
  { href: paths.inbox, word: say.inbox, pages: ['inbox'] },
  { href: paths.nodes, word: say.nodes, pages: ['nodes', 'node', 'registry'], end: true },
  { href: paths.me, word: say.me, pages: ['me'] }
]

const TITLES: Partial<Record<Route['page'], string>> = {
  flows: say.flows,
  flow: say.flows,
  runs: say.runs,
  schedules: say.schedule.listTitle,
  invitations: say.invite.listTitle,
  inbox: say.inbox,
  me: say.me,
  nodes: say.nodes,
  node: say.nodes,
  registry: say.registry.title
}

export function Shell() {
  const at = route.value
  const count = waiting.value.length
  useEffect(() => {
    const word = TITLES[at.page]
    if (word !== undefined) document.title = `${count > 0 ? `(${count}) ` : ''}${word} – kodo`
  }, [at, count])
  return (
    <div class="shell">
      <a class="skip" href="#page" onClick={skip}>
        {say.skip}
      </a>
      <header class="bar">
        <div class="bar-inner">
          <a class="brand" href={paths.flows()} aria-label="kodo">
            <Mark />
            kodo
          </a>
          <nav class="tabs" aria-label={say.navigation}>
            {TABS.map(({ href, word, pages, end }) => (
              <a key={href} href={href} class={end ? 'end' : ''} aria-current={pages.includes(at.page) ? 'page' : undefined}>
                {word}
                {word === say.inbox && count > 0 && (
                  <span class="count" title={say.waits(count)}>
                    {count}
                  </span>
                )}
              </a>
            ))}
          </nav>
        </div>
      </header>
      <main class="page" id="page" tabIndex={-1}>
        <Lacks />
        {lockState.value === 'locked' ? <LockedPage /> : <Page at={at} />}
      </main>
      <Told />
    </div>
  )
}

/** Move the focus; the fragment stays what it is. */
function skip(event: Event): void {
  event.preventDefault()
  document.getElementById('page')?.focus()
}

function Told() {
  const { text, turn } = announced.value
  // Two regions in turn, so that the same words are told again.
  return (
    <div class="unseen">
      <p role="status">{turn % 2 === 0 ? text : ''}</p>
      <p role="status">{turn % 2 === 1 ? text : ''}</p>
    </div>
  )
}

/** Whether the page comes from elsewhere: only then browsers ask before it may reach the local network. */
const isFar = !/^(localhost|127\.|10\.|192\.168\.|172\.(1[6-9]|2\d|3[01])\.|169\.254\.|\[)/.test(location.hostname)

/** What this browser, or the way that the page was loaded, keeps from working. */
function Lacks() {
  const [can, setCan] = useState<Capabilities | undefined>()
  useTask(async stop => {
    const found = await engine().capabilities()
    if (!stop.aborted) setCan(found)
  }, [])
  if (!can) return null
  if (!can.webrtc)
    return (
      <Note kind="bad" title={say.noWebRtc.title}>
        <p>{say.noWebRtc.text}</p>
      </Note>
    )
  return (
    <>
      {!can.secure && (
        <Note kind="warn" title={say.insecure.title}>
          <p>{coded(say.insecure.text)}</p>
        </Note>
      )}
      {isFar && can.localNetwork === 'denied' && (
        <Note kind="warn">
          <p>{say.localNetwork.denied}</p>
        </Note>
      )}
      {isFar && can.localNetwork === 'prompt' && (
        <Note>
          <p>{say.localNetwork.prompt}</p>
        </Note>
      )}
    </>
  )
}
