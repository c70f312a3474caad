/** A list of any length of which only the rows in view exist. All rows have one height. */
import type { ComponentChildren } from 'preact'
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'

interface Props {
  /** What the list is, for screen readers. */
  label: string
  count: number
  /** Of one row, in CSS pixels. */
  rowHeight: number
  row: (index: number) => ComponentChildren
  /** Changes when rows change without their number changing. */
  version: number
  /** Whether the end stays in view as rows come. */
  following: boolean
  onFollowing: (following: boolean) => void
}

const AROUND = 10
/** So many are made whole: the browser's own search finds everything in them. */
const WHOLE = 300
/** Browsers lose precision beyond some millions of pixels. */
const MAX_HEIGHT = 8_000_000

export function VirtualList({ label, count, rowHeight, row, version, following, onFollowing }: Props) {
  const frame = useRef<HTMLDivElement>(null)
  const last = useRef(0)
  const [seen, setSeen] = useState({ first: 0, rows: 30 })
  const height = Math.min(count * rowHeight, MAX_HEIGHT)
  // Beyond that height a pixel of the scroll bar stands for several of the list.
  const scale = height > 0 ? (count * rowHeight) / height : 1

  const look = () => {
    const box = frame.current
    if (!box) return
    const first = Math.max(0, Math.floor((box.scrollTop * scale) / rowHeight) - AROUND)
    const rows = Math.ceil(box.clientHeight / rowHeight) + 2 * AROUND
    setSeen(before => (before.first === first && before.rows === rows ? before : { first, rows }))
  }
  const scrolled = () => {
    look()
    const box = frame.current
    if (!box) return
    // Only a person scrolls up: rows that came since the last look are no reason to stop following.
    const isUp = box.scrollTop < last.current - 1
    last.current = box.scrollTop
    const atEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - rowHeight
    if (atEnd !== following && (atEnd || isUp)) onFollowing(atEnd)
  }

  useLayoutEffect(() => {
    const box = frame.current
    if (box && following) {
      box.scrollTop = box.scrollHeight
      last.current = box.scrollTop
    }
    look()
  }, [count, following, version, rowHeight])

  useEffect(() => {
    const box = frame.current
    if (!box) return undefined
    const watch = new ResizeObserver(look)
    watch.observe(box)
    return () => watch.disconnect()
  }, [])

  const start = count <= WHOLE ? 0 : Math.min(seen.first, Math.max(0, count - 1))
  const end = count <= WHOLE ? count : Math.min(count, seen.first + seen.rows)
  const rows = []
  for (let index = start; index < end; index += 1)
    rows.push(
      <li key={index} aria-setsize={count} aria-posinset={index + 1} style={{ height: `${rowHeight}px` }}>
        {row(index)}
      </li>
    )
  return (
    <div class="virtual" ref={frame} onScroll={scrolled} tabIndex={0} role="group" aria-label={label}>
      <div style={{ height: `${height}px` }} class="virtual-all">
        <ol style={{ transform: `translateY(${(start * rowHeight) / scale}px)` }}>{rows}</ol>
      </div>
    </div>
  )
}
