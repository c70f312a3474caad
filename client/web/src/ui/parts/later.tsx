/** What is of less use at first: loaded when somebody goes there. */
import type { ComponentType } from 'preact'
import { useState } from 'preact/hooks'
import { say } from '../texts.ts'
import { Skeletons, useTask } from './parts.tsx'

export function later<Props extends object>(load: () => Promise<ComponentType<Props>>): ComponentType<Props> {
  let loaded: ComponentType<Props> | undefined
  return function Later(props: Props) {
    const [Shown, setShown] = useState<ComponentType<Props> | undefined>(() => loaded)
    useTask(async () => {
      loaded = await load()
      setShown(() => loaded)
    }, [])
    return Shown ? <Shown {...props} /> : <Skeletons label={say.loading} rows={2} />
  }
}
