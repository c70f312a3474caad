/** Texts that name commands: what stands between backticks is shown as code. */
import type { ComponentChildren } from 'preact'

/** Return a text of the page's own for showing. */
export const coded = (text: string): ComponentChildren => text.split('`').map((part, index) => (index % 2 === 1 ? <code key={index}>{part}</code> : part))
