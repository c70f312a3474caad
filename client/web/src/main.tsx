/** The page's entry. Keys and tokens leave the address bar before anything else happens. */
import { render } from 'preact'
import { openEngine } from './net/engine.ts'
import { engine, loginFailure, nodeOf, setEngine, startClock, watchLock } from './ui/app.ts'
import { host, openHost, serveRegistry } from './ui/host.ts'
import { watchInbox } from './ui/inbox/state.ts'
import { openBrought } from './ui/link/open.ts'
import { Empty } from './ui/parts/parts.tsx'
import { broughtBack, parseRoute, paths, route, takeSecrets } from './ui/router.ts'
import { Shell } from './ui/shell.tsx'
import { say } from './ui/texts.ts'
import { showTheme } from './ui/theme.ts'
import './ui/styles/all.css'

/** Log in with what the issuer sent the browser back with, and go where the login was begun. */
async function comeBack(search: string): Promise<void> {
  const { issuerLogin } = engine()
  const begun = issuerLogin.taken()
  history.replaceState(null, '', `${location.pathname}${begun?.back ?? paths.me}`)
  try {
    const tokens = await issuerLogin.finish(search, begun)
    const at = engine().registries.find(each => each.url === begun!.place) ?? nodeOf(begun!.place)
    await at.logins.issued(begun!, tokens)
  } catch (error) {
    loginFailure.value = error
    history.replaceState(null, '', `${location.pathname}${paths.me}`)
  }
}

function arrive(): { key: string | undefined; get: string | undefined } {
  const { key, get, rest } = takeSecrets(location.hash)
  if (key !== undefined || get !== undefined) history.replaceState(null, '', `${location.pathname}${rest}`)
  return { key, get }
}

async function begin(root: HTMLElement): Promise<void> {
  const back = broughtBack(location.search)
  const { key, get } = arrive()
  showTheme()
  await openHost(key)
  setEngine(
    openEngine({
      registries: host.value.kind === 'registry' ? [location.origin] : [],
      findAddresses: (peerId, stop) => host.peek().addresses(peerId, stop),
      findTurn: (peerId, stop) => host.peek().turn(peerId, stop),
      ...(host.value.issuers && { issuers: host.value.issuers })
    })
  )
  await watchLock()
  const [own] = engine().registries
  if (own) serveRegistry(own)
  if (back !== undefined) await comeBack(back)
  let damaged = false
  const open = (token: string | undefined) => {
    try {
      if (token !== undefined) openBrought(token)
      damaged = false
    } catch {
      damaged = true
    }
    if (damaged) render(<Empty title={say.link.damaged}>{<p>{say.link.dead['no-such-link']?.text}</p>}</Empty>, root)
    else {
      route.value = parseRoute(location.hash)
      render(<Shell />, root)
    }
  }
  open(get)
  addEventListener('hashchange', () => {
    document.body.dataset['moved'] = 'yes'
    const again = arrive()
    if (again.key !== undefined) void openHost(again.key)
    open(again.get)
  })
  startClock()
  watchInbox()
}

const root = document.getElementById('app')
if (root) void begin(root)
