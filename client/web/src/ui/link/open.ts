/** Links that were opened: kept for this tab alone, so that a reload goes on, and gone with it. */
import { decodeToken, type Link, parseLink } from '../../core/link.ts'
import { go, paths } from '../router.ts'
import { keep, kept } from '../storage.ts'

const NAME = 'kodo.link.'

/** Go to the page of a link. `text` is the link, or its token. */
export function openToken(link: Link, text: string): void {
  keep(NAME + link.fid, text.trim(), true)
  go(paths.link(link.fid))
}

/** Open the token that the address brought. @throws UsageError: it is damaged. */
export function openBrought(token: string): void {
  const link = decodeToken(token)
  keep(NAME + link.fid, token, true)
  go(paths.link(link.fid), { replace: true })
}

/** Return the link of a run that was opened in this tab. */
export function openedLink(fid: string): Link | undefined {
  const text = kept(NAME + fid, true)
  try {
    return text === undefined ? undefined : parseLink(text)
  } catch {
    return undefined
  }
}
