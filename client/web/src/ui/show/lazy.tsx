/** Markdown is read by a library that is loaded when there is some. */
import type { ComponentType } from 'preact'
import { useEffect, useState } from 'preact/hooks'

let loaded: ComponentType<{ text: string }> | undefined

/** Show a text as Markdown; as it is until the library is there. */
export function LazyMarkdown({ text }: { text: string }) {
  const [Shown, setShown] = useState<ComponentType<{ text: string }> | undefined>(() => loaded)
  useEffect(() => {
    if (loaded) return undefined
    let over = false
    import('./markdown.tsx').then(
      module => {
        loaded = module.Markdown
        if (!over) setShown(() => module.Markdown)
      },
      () => undefined // the text itself stays
    )
    return () => {
      over = true
    }
  }, [])
  return Shown ? <Shown text={text} /> : <pre class="plain">{text}</pre>
}
