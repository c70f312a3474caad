/** What one has standing on all nodes that this browser has used, as schedules and invitations: read, and changed. */
import { useState } from 'preact/hooks'
import type { Row, Sendable } from '../../core/value.ts'
import { nodeOf } from '../app.ts'
import { nameOf } from '../book.ts'
import { oneLine } from '../format.ts'
import { Failure, Note, useTask } from '../parts/parts.tsx'
import { say } from '../texts.ts'
import { listRows } from './runs.ts'

export interface Standing {
  peerId: string
  node: string
  row: Row
}

/** Read the rows of a paged op everywhere, again after each change. */
export function useEverywhere(op: string) {
  const [rows, setRows] = useState<ReadonlyMap<string, Row[]>>(new Map())
  const [away, setAway] = useState<readonly string[]>([])
  const [looking, setLooking] = useState(true)
  const [error, setError] = useState<unknown>()
  const [turn, setTurn] = useState(0)
  useTask(
    async stop => {
      setLooking(true)
      const silent: string[] = []
      await listRows(op, {}, (peerId, found) => !stop.aborted && setRows(before => new Map(before).set(peerId, found)), name => silent.push(name), stop)
      if (stop.aborted) return
      setAway(silent)
      setLooking(false)
    },
    [op, turn]
  )
  const all: Standing[] = [...rows].flatMap(([peerId, found]) => found.map(row => ({ peerId, node: nameOf(peerId), row })))
  /** Make a call that changes one of them. */
  const act = async (peerId: string, call: string, args: { readonly [key: string]: Sendable }) => {
    setError(undefined)
    try {
      await nodeOf(peerId).ask(call, args)
    } catch (failed) {
      setError(failed)
    }
    setTurn(before => before + 1)
  }
  const notes = (
    <>
      {error !== undefined && <Failure error={error} />}
      {away.length > 0 && !looking && <Note kind="warn">{<p>{say.list.awayOthers(away.map(each => oneLine(each, 60)).join(', '))}</p>}</Note>}
    </>
  )
  return { all, looking, notes, act }
}
