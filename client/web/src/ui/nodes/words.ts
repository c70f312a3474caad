/** Lists of words that come from elsewhere, to be shown. */
import type { Value } from '../../core/value.ts'
import { brief } from '../format.ts'

/** Return a list's elements as short texts, none where it is no list. */
export const words = (value: Value | undefined): string[] => (Array.isArray(value) ? value.map(each => brief(each, 120)) : [])
