/** Where the page is: the fragment of its address, read and written. Nothing of it is ever sent to a server. */
import { signal } from '@preact/signals'
import { isId } from '../core/link.ts'

export type Route =
  | { page: 'flows'; search: string; node: string | undefined }
  /** `like`: the fid of a run whose inputs the form begins with. */
  | { page: 'flow'; node: string; path: string; like: string | undefined }
  | { page: 'run'; node: string; fid: string; lock: string | undefined }
  /** `fid`: of the run, or the sid of an invitation; `run`: one that was launched by it. */
  | { page: 'link'; fid: string; run: string | undefined }
  | { page: 'schedules' | 'invitations' | 'inbox' | 'me' | 'nodes' | 'registry' }
  /** `tag`: those that have it alone. */
  | { page: 'runs'; tag: string | undefined }
  | { page: 'node'; node: string }
  | { page: 'unknown' }

/** Decode one part of a path; a part that is not encoded well stands for itself. */
function decoded(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}

/** Read a fragment, with or without its `#`. */
export function parseRoute(hash: string): Route {
  const [path = '', query = ''] = hash.replace(/^#?\/?/, '').split('?', 2)
  const [page = '', ...rest] = path.split('/')
  const [node = '', last = ''] = [rest[0], rest[1]].map(part => decoded(part ?? ''))
  const parameters = new URLSearchParams(query)
  switch (page) {
    case '':
    case 'flows':
      return { page: 'flows', search: parameters.get('search') ?? '', node: parameters.get('node') ?? undefined }
    case 'flow':
      if (node && last) {
        const like = parameters.get('like') ?? ''
        return { page: 'flow', node, path: last, like: isId(like) ? like : undefined }
      }
      break
    case 'run':
      if (node && isId(last)) {
        const lock = parameters.get('lock') ?? ''
        return { page: 'run', node, fid: last, lock: isId(lock) ? lock : undefined }
      }
      break
    case 'link':
      if (isId(node) && (last === '' || isId(last))) return { page: 'link', fid: node, run: last || undefined }
      break
    case 'nodes':
      return node ? { page: 'node', node } : { page: 'nodes' }
    case 'runs':
      return { page, tag: parameters.get('tag') || undefined }
    case 'schedules':
    case 'invitations':
    case 'inbox':
    case 'me':
    case 'registry':
      return { page }
  }
  return { page: 'unknown' }
}

const part = encodeURIComponent

export const paths = {
  flows: (search = '', node?: string) => {
    const query = new URLSearchParams({ ...(search && { search }), ...(node && { node }) }).toString()
    return query ? `#/flows?${query}` : '#/flows'
  },
  /** Of a flow; with a run, its form begins with the inputs of that. */
  flow: (node: string, path: string, like?: string) => `#/flow/${part(node)}/${part(path)}${like === undefined ? '' : `?like=${part(like)}`}`,
  /** Of a run; with a lock, of that question. */
  run: (node: string, fid: string, lock?: string) => `#/run/${part(node)}/${part(fid)}${lock === undefined ? '' : `?lock=${part(lock)}`}`,
  /** Of a link; with a run, of one that was launched by that invitation. */
  link: (fid: string, run?: string) => `#/link/${part(fid)}${run === undefined ? '' : `/${part(run)}`}`,
  runs: (tag?: string) => (tag === undefined ? '#/runs' : `#/runs?${new URLSearchParams({ tag }).toString()}`),
  schedules: '#/schedules',
  invitations: '#/invitations',
  inbox: '#/inbox',
  me: '#/me',
  nodes: '#/nodes',
  registry: '#/registry',
  node: (node: string) => `#/nodes/${part(node)}`
}

/** What a fragment brought that must not stay in the address bar. */
export interface Brought {
  /** The key that `koco web` printed. */
  key: string | undefined
  /** The token of a link. */
  get: string | undefined
  /** What is left: where to go. */
  rest: string
}

/** Take keys and tokens out of a fragment. */
export function takeSecrets(hash: string): Brought {
  let rest = hash.replace(/^#/, '')
  const key = /^\/?key=([\w-]{1,200})/.exec(rest)
  if (key) rest = rest.slice(key[0].length).replace(/^[/&]*#?/, '')
  const get = /^\/?(?:get|open)=([^&#/\s]{0,8192})/.exec(rest)
  if (get) rest = ''
  return { key: key?.[1], get: get?.[1], rest: rest && `#${rest}` }
}

/** Return what an issuer of tokens sent the browser back with: the query of the address, undefined where there is none. */
export const broughtBack = (search: string): string | undefined => {
  const given = new URLSearchParams(search)
  return given.has('state') && (given.has('code') || given.has('error')) ? search : undefined
}

/** Where the page is now. */
export const route = signal<Route>({ page: 'flows', search: '', node: undefined })

/** Go somewhere. */
export function go(hash: string, options: { replace?: boolean } = {}): void {
  if (options.replace) {
    history.replaceState(null, '', hash)
    route.value = parseRoute(hash)
  } else location.hash = hash
}

/**
 * Return the address of what the Flows page shows now; undefined for whoever has gone elsewhere meanwhile, and stays there.
 * `drawn`: the fragment when the page was drawn; `now`: the present one, whose `hashchange` may still be to come.
 */
export function settledFlows(drawn: string, now: string, search: string, node: string | undefined): string | undefined {
  const at = parseRoute(now)
  return now === drawn && at.page === 'flows' && at.node === node ? paths.flows(search, node) : undefined
}
