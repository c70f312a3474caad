/**
 * Names of outputs on disks that cannot store each of them, as `kodo.protocol.portable_names` has them: what Windows
 * cannot store is written as `%` and two hexadecimal digits for each byte, so that the name can be told from it again.
 *
 *     a:b.txt ─► a%3Ab.txt      CON ─► %43ON      notes. ─► notes%2E      A.txt beside a.txt ─► %41.txt beside a.txt
 *
 * A page does not know its disk, and browsers refuse everywhere what Windows refuses; so its rules hold here on each system.
 */
import { sha256 } from '@noble/hashes/sha2.js'
import { hex, utf8 } from './bytes.ts'
import { PeerError } from './errors.ts'

const MAX_NAME_BYTES = 512
/** What common file systems take for one part (NAME_MAX). */
const MAX_PART_BYTES = 255
/** How much is kept of a part that is too long with its escapes. */
const KEPT_BYTES = 200

/** But for the joiners, which scripts and emoji need. */
const CONTROL = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u
const JOINER = /[\u200c\u200d]/
const FORBIDDEN = /[\\:*?"<>|]/
const RESERVED = /^(con|prn|aux|nul|com[1-9]|lpt[1-9])$/i
const ESCAPED = /%[0-9A-Fa-f]{2}/g

/** Return an output's name where it is the name of a file below a folder. @throws PeerError: it is not, and saying why. */
export function checkOutputName(name: string): string {
  const wrong = (what: string) => new PeerError(`the node announced an output that cannot be stored: ${what}`)
  const size = utf8(name).length
  if (size === 0 || size > MAX_NAME_BYTES || !name.isWellFormed()) throw wrong(`an output's name is 1 to ${MAX_NAME_BYTES} bytes of text`)
  if (name.includes('\0')) throw wrong('its name has a null character')
  for (const part of name.split('/')) {
    if (part === '' || part === '.' || part === '..') throw wrong('its name is not a plain relative path')
    if (utf8(part).length > MAX_PART_BYTES) throw wrong(`a part of its name is longer than ${MAX_PART_BYTES} bytes`)
  }
  return name
}

/** Return what names that macOS or Windows take for the same have in common: their full case folding, composed. */
function fold(name: string): string {
  // Character by character: the lower case of a whole text depends on what stands at the end of a word. ı stays itself.
  const folded = (letter: string) => (letter === 'ı' ? letter : lower(lower(letter).toUpperCase()))
  return Array.from(name.normalize('NFC'), folded).join('').normalize('NFC')
}

const lower = (text: string): string => Array.from(text, letter => letter.toLowerCase()).join('')

const prefixes = (name: string): string[] => name.split('/').map((_, index, parts) => parts.slice(0, index + 1).join('/'))

/** Return for each output's name what it is called on the disk: never two the same. @param names as checked above. */
export function storedNames(names: readonly string[]): Map<string, string> {
  const spellings = new Map<string, Set<string>>()
  for (const prefix of names.flatMap(prefixes)) {
    const folded = fold(prefix)
    spellings.set(folded, (spellings.get(folded) ?? new Set()).add(prefix))
  }
  const stored = (name: string) => {
    const parts = name.split('/')
    return prefixes(name).map((prefix, index) => storedPart(parts[index]!, spellings.get(fold(prefix))!.size > 1))
  }
  return new Map(names.map(name => [name, stored(name).join('/')]))
}

function storedPart(part: string, alike: boolean): string {
  const escapes = new Set(Array.from(part.matchAll(ESCAPED), match => match.index)) // or it would be read as one
  const device = RESERVED.test(part.split('.')[0]!.trimEnd())
  let made = ''
  let at = 0
  for (const letter of part) {
    const isLast = at + letter.length === part.length
    const bad =
      (alike && /[A-Z\u0080-\u{10ffff}]/u.test(letter)) ||
      escapes.has(at) ||
      (CONTROL.test(letter) && !JOINER.test(letter)) ||
      FORBIDDEN.test(letter) ||
      (isLast && /[. ]/.test(letter)) ||
      (at === 0 && device)
    made += bad ? escaped(letter) : letter
    at += letter.length
  }
  const bytes = utf8(made)
  if (bytes.length <= MAX_PART_BYTES) return made
  // Too long with escapes: the one name that cannot be turned back, for there is no room to say it.
  return `${new TextDecoder().decode(bytes.subarray(0, wholeBytes(bytes, KEPT_BYTES)))}~${hex(sha256(utf8(part))).slice(0, 16)}`
}

const escaped = (letter: string): string => Array.from(utf8(letter), byte => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`).join('')

/** Return how many of the first bytes are whole characters. */
function wholeBytes(bytes: Uint8Array, most: number): number {
  let end = most
  while ((bytes[end]! & 0xc0) === 0x80) end--
  return end
}

/** Return the name of one output's file, without its folders; a browser would drop a dot at its beginning, too. */
export function fileName(output: string): string {
  const name = storedNames([output]).get(output)!.split('/').at(-1)!
  return name.startsWith('.') ? escaped('.') + name.slice(1) : name
}
