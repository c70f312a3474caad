/** Small things that this browser remembers. Where storage is refused, they are forgotten with the page. */

const memory = new Map<string, string>()

function store(session: boolean): Storage | undefined {
  try {
    return session ? sessionStorage : localStorage
  } catch {
    return undefined
  }
}

/** Return what is kept under a name. `session`: of this tab alone. */
export function kept(name: string, session = false): string | undefined {
  try {
    return store(session)?.getItem(name) ?? memory.get(name)
  } catch {
    return memory.get(name)
  }
}

/** Keep a text, or forget it. */
export function keep(name: string, text: string | undefined, session = false): void {
  if (text === undefined) memory.delete(name)
  else memory.set(name, text)
  try {
    if (text === undefined) store(session)?.removeItem(name)
    else store(session)?.setItem(name, text)
  } catch {
    // It is full or refused: what is in memory has to do.
  }
}

/** Return a kept JSON value; undefined where there is none, or it is damaged. */
export function keptJson(name: string, session = false): unknown {
  const text = kept(name, session)
  if (text === undefined) return undefined
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
