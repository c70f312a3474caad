/** A run that is followed, as components see it: they are drawn again at most once a frame, however many events come. */
import { useEffect, useMemo, useState } from 'preact/hooks'
import { fieldOf, textOf, type Row } from '../../core/value.ts'
import type { FollowedRun, NodeClient } from '../../net/api.ts'
import type { StateWord } from '../parts/parts.tsx'

/** Begin to follow when shown, stop when not. The number changes with each batch of news. */
export function useFollowed(node: NodeClient, fid: string): { run: FollowedRun; version: number } {
  const run = useMemo(() => node.follow(fid), [node, fid])
  const [version, setVersion] = useState(0)
  useEffect(() => {
    let waiting = false
    const draw = () => {
      waiting = false
      setVersion(before => before + 1)
    }
    const stop = run.on(() => {
      if (waiting) return
      waiting = true
      // A page in the background gets no frames, and its title is to change all the same.
      if (document.hidden) setTimeout(draw, 250)
      else requestAnimationFrame(draw)
    })
    draw()
    return () => {
      stop()
      run.stop()
    }
  }, [run])
  return { run, version }
}

/** What the node says of a run besides its events. */
export interface Told {
  row: Row
  own: boolean
  level: number
  mode: string
  /** Place in the queue, from 1. */
  queued: number | undefined
}

/** Read the answer of `run.state`. */
export function readTold(row: Row): Told {
  const level = fieldOf(row, 'level')
  const position = fieldOf(row, 'queue_position')
  return {
    row,
    own: fieldOf(row, 'own') === true,
    level: typeof level === 'number' ? level : 2,
    mode: textOf(row, 'modes'),
    queued: typeof position === 'number' ? position : undefined
  }
}

/** Return the state as a word: a run whose flow has said nothing yet may still be waiting for its turn. */
export function stateOf(run: FollowedRun, told: Told | undefined): StateWord {
  const { state } = run.view
  if (state !== 'pending') return state
  const begun = run.view.progress !== undefined || run.dropped > 0 || run.events.some(event => event.kind === 'process')
  if (begun) return 'running'
  return told && told.queued === undefined ? 'running' : 'queued'
}
