/** Light or dark: as the system says, or as was chosen here. */
import { signal } from '@preact/signals'
import { keep, kept } from './storage.ts'

const NAME = 'kodo.theme'

export const theme = signal(kept(NAME) ?? 'system')

/** Choose, and show it at once. */
export function setTheme(chosen: string): void {
  theme.value = chosen
  keep(NAME, chosen === 'system' ? undefined : chosen)
  showTheme()
}

/** Tell the styles. */
export function showTheme(): void {
  const { dataset } = document.documentElement
  if (theme.peek() === 'light' || theme.peek() === 'dark') dataset['theme'] = theme.peek()
  else delete dataset['theme']
}
