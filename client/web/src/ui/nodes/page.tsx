/** Nodes: those that this browser has met. */
import { oneLine } from '../format.ts'
import { book, forget, shortId } from '../book.ts'
import { host } from '../host.ts'
import { Empty, PageHead } from '../parts/parts.tsx'
import { paths } from '../router.ts'
import { say } from '../texts.ts'

const text = say.nodePage

export function NodesPage() {
  const all = [...book.value.values()].sort((a, b) => b.at - a.at || a.name.localeCompare(b.name))
  return (
    <>
      <PageHead title={text.title}>
        <p>{text.text}</p>
      </PageHead>
      {all.length === 0 && (
        <Empty title={text.none}>
          <p>{text.noneText}</p>
        </Empty>
      )}
      <ul class="flow-list">
        {all.map(each => (
          <li key={each.peerId} class="card stack tight">
            <h2>{oneLine(each.name || shortId(each.peerId), 80)}</h2>
            <p class="small muted mono">{each.peerId}</p>
            <div class="row">
              <a class="button small" href={paths.node(each.peerId)}>
                {text.show}
              </a>
              <a class="button small" href={paths.flows('', each.peerId)}>
                {text.flows}
              </a>
              <button type="button" class="button small" aria-label={say.meText.forget(oneLine(each.name || shortId(each.peerId), 40))} onClick={() => forget(each.peerId)}>
                {say.meText.forgetShort}
              </button>
            </div>
          </li>
        ))}
      </ul>
      <Registries />
    </>
  )
}

/** The registries that are looked into, and where each is operated: in the page that it serves itself. */
function Registries() {
  const { kind, catalogs } = host.value
  if (catalogs.length === 0) return null
  return (
    <section class="card stack tight" aria-labelledby="registries">
      <h2 id="registries">{text.registries}</h2>
      <p class="small muted">{say.registry.where}</p>
      <ul class="lines">
        {catalogs.map(({ url }) => (
          <li key={url} class="row between">
            <span class="mono grow">{oneLine(url, 200)}</span>
            {kind === 'registry' ? (
              <a class="button small" href={paths.registry}>
                {say.registry.operate}
              </a>
            ) : (
              /^https?:\/\//.test(url) && (
                <a class="button small" href={`${url}/${paths.registry}`} target="_blank" rel="noopener noreferrer">
                  {say.registry.open}
                </a>
              )
            )}
          </li>
        ))}
      </ul>
    </section>
  )
}
