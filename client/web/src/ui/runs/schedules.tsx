/** Schedules: flows that nodes launch at times in one's name. */
import { useState } from 'preact/hooks'
import { fieldOf, isRow, numberOf, textOf, type Row } from '../../core/value.ts'
import { Times } from '../flows/schedule.tsx'
import { whenOf } from '../flows/timing.ts'
import { oneLine } from '../format.ts'
import { Confirm, Empty, PageHead, Skeletons, Time } from '../parts/parts.tsx'
import { paths } from '../router.ts'
import { say } from '../texts.ts'
import { type Standing, useEverywhere } from './everywhere.tsx'

const text = say.schedule

export function SchedulesPage() {
  const { all, looking, notes, act } = useEverywhere('schedule.list')
  const [asked, setAsked] = useState<Standing | undefined>()
  const rows = all.sort((a, b) => dueOf(a.row) - dueOf(b.row))
  return (
    <>
      <PageHead title={text.listTitle}>
        <p>{text.listText}</p>
      </PageHead>
      {notes}
      {rows.length === 0 && looking && <Skeletons label={say.loading} />}
      {rows.length === 0 && !looking && (
        <Empty title={text.listNone}>
          <p>{text.listNoneText}</p>
        </Empty>
      )}
      {rows.length > 0 && (
        <div class="card scroll">
          <table class="table folding">
            <caption class="unseen">{text.listTitle}</caption>
            <thead>
              <tr>
                <th scope="col">{say.list.flow}</th>
                <th scope="col">{text.when}</th>
                <th scope="col">{text.next}</th>
                <th scope="col">{text.last}</th>
                <th scope="col">{say.list.title}</th>
                <th scope="col">{say.list.node}</th>
                <th scope="col">
                  <span class="unseen">{text.change}</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {rows.map(each => (
                <Schedule key={textOf(each.row, 'sid')} standing={each} act={act} ask={setAsked} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      {asked && (
        <Confirm
          title={text.removeTitle(oneLine(textOf(asked.row, 'name'), 60))}
          text={text.removeText}
          action={text.remove}
          act={() => act(asked.peerId, 'schedule.remove', { sid: textOf(asked.row, 'sid') })}
          close={() => setAsked(undefined)}
        />
      )}
    </>
  )
}

/** When it is due next; what is paused or over comes last. */
function dueOf(row: Row): number {
  const next = fieldOf(row, 'next')
  const first = Array.isArray(next) && fieldOf(row, 'paused') !== true ? next[0] : undefined
  return typeof first === 'number' ? first : Number.MAX_SAFE_INTEGER
}

function Schedule({ standing, act, ask }: { standing: Standing; act: ReturnType<typeof useEverywhere>['act']; ask: (standing: Standing) => void }) {
  const { peerId, node, row } = standing
  const name = oneLine(textOf(row, 'name'), 120)
  const sid = textOf(row, 'sid')
  const isPaused = fieldOf(row, 'paused') === true
  const last = fieldOf(row, 'last')
  const button = (word: string) => ({ type: 'button' as const, 'aria-label': `${word}: ${name}` })
  return (
    <tr>
      <td>
        <a href={paths.flow(peerId, textOf(row, 'path'))}>{name}</a>
      </td>
      <td>{oneLine(whenOf(row), 160)}</td>
      <td data-label={text.next}>{isPaused ? text.paused : fieldOf(row, 'waits') === true ? text.waits : <Times row={row} />}</td>
      <td data-label={text.last}>{last !== undefined && isRow(last) ? <Last peerId={peerId} last={last} /> : text.notYet}</td>
      <td data-label={say.list.title}>{numberOf(row, 'launches') ?? 0}</td>
      <td class="node-name">{oneLine(node, 60)}</td>
      <td>
        <div class="row">
          <button {...button(isPaused ? text.resume : text.pause)} class="button small" onClick={() => void act(peerId, 'schedule.pause', { sid, paused: !isPaused })}>
            {isPaused ? text.resume : text.pause}
          </button>
          <button {...button(text.remove)} class="button small danger" onClick={() => ask(standing)}>
            {text.remove}
          </button>
        </div>
      </td>
    </tr>
  )
}

/** What became of the last time: its run, or why there is none. */
function Last({ peerId, last }: { peerId: string; last: Row }) {
  const [fid, reason] = [textOf(last, 'fid'), textOf(last, 'reason')]
  const time = <Time at={numberOf(last, 'due')} />
  return (
    <>
      {fid ? <a href={paths.run(peerId, fid)}>{time}</a> : time}
      {reason && <p class="small muted">{oneLine(reason, 200)}</p>}
    </>
  )
}
