/** Invitations: links by which others launch flows in one's name. */
import { useState } from 'preact/hooks'
import { numberOf, textOf } from '../../core/value.ts'
import { oneLine } from '../format.ts'
import { Confirm, Empty, PageHead, Skeletons, Time } from '../parts/parts.tsx'
import { paths } from '../router.ts'
import { say } from '../texts.ts'
import { type Standing, useEverywhere } from './everywhere.tsx'

const text = say.invite

export function InvitationsPage() {
  const { all, looking, notes, act } = useEverywhere('invitation.list')
  const [asked, setAsked] = useState<Standing | undefined>()
  const rows = all.sort((a, b) => (numberOf(b.row, 'created') ?? 0) - (numberOf(a.row, 'created') ?? 0))
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
                <th scope="col">{text.flow}</th>
                <th scope="col">{say.list.state}</th>
                <th scope="col">{text.used}</th>
                <th scope="col">{text.ends}</th>
                <th scope="col">{say.list.node}</th>
                <th scope="col">
                  <span class="unseen">{text.end}</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {rows.map(each => (
                <tr key={textOf(each.row, 'sid')}>
                  <td>
                    <a href={paths.flow(each.peerId, textOf(each.row, 'path'))}>{oneLine(textOf(each.row, 'name'), 120)}</a>
                    {textOf(each.row, 'note') && <p class="small muted">{oneLine(textOf(each.row, 'note'), 120)}</p>}
                  </td>
                  <td>{oneLine(textOf(each.row, 'state'), 20)}</td>
                  <td class="nowrap">{text.launched(numberOf(each.row, 'launched') ?? 0, numberOf(each.row, 'launches') ?? 0)}</td>
                  <td data-label={text.ends}>
                    <Time at={numberOf(each.row, 'expires_at')} />
                  </td>
                  <td class="node-name">{oneLine(each.node, 60)}</td>
                  <td>
                    {['live', 'used-up'].includes(textOf(each.row, 'state')) && (
                      <button type="button" class="button small danger" aria-label={`${text.end}: ${oneLine(textOf(each.row, 'name'), 60)}`} onClick={() => setAsked(each)}>
                        {text.end}
                      </button>
                    )}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {asked && (
        <Confirm
          title={text.endTitle}
          text={text.endText}
          action={text.end}
          act={() => act(asked.peerId, 'share.revoke', { sid: textOf(asked.row, 'sid') })}
          close={() => setAsked(undefined)}
        />
      )}
    </>
  )
}
