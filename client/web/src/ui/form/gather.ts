/** Files that a person chose, dropped or pasted, with the names that they have in their folders. */
import { UsageError } from '../../core/errors.ts'
import { say } from '../texts.ts'

/** Files that are taken at once, as in `koco`. */
export const MAX_FILES = 1000

export interface Named {
  file: File
  /** With the folders before it, as `photos/2024/a.jpg`; without any where it was chosen by itself. */
  name: string
}

/** Those parts of a `FileSystemEntry` that are used. */
export interface Entry {
  readonly name: string
  readonly isFile: boolean
  readonly isDirectory: boolean
  file?(taken: (file: File) => void, failed: (error: DOMException) => void): void
  createReader?(): { readEntries(taken: (entries: Entry[]) => void, failed: (error: DOMException) => void): void }
}

/** Hidden ones are what tools keep there. */
const isHidden = (name: string): boolean => name.split('/').some(part => part.startsWith('.'))

/** Put files into the order of their names. @throws UsageError: there are none, or too many. */
function checked(found: Named[]): Named[] {
  if (found.length === 0) throw new UsageError(say.form.noFiles)
  if (found.length > MAX_FILES) throw new UsageError(say.form.manyFiles(MAX_FILES))
  return found.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0))
}

/** Take what a field for files or folders has. */
export function chosen(files: Iterable<File>): Named[] {
  const named = Array.from(files, file => ({ file, name: file.webkitRelativePath || file.name }))
  return checked(named.filter(({ file, name }) => !file.webkitRelativePath || !isHidden(name)))
}

/** Take what was dropped or pasted. Call it in the event itself: the browser forgets what came with it. */
export function brought(data: DataTransfer): Promise<Named[]> {
  const items = Array.from(data.items).filter(item => item.kind === 'file')
  const entries = items.map(item => item.webkitGetAsEntry() as Entry | null)
  // What is no file of a disk, as a picture that was copied, has no entry.
  const loose = items.flatMap((item, index) => (entries[index] ? [] : [item.getAsFile()])).filter(file => file !== null)
  return gathered(entries.filter(each => each !== null), loose)
}

/** Read folders to their ends. */
export async function gathered(entries: readonly Entry[], loose: readonly File[] = []): Promise<Named[]> {
  const found: Named[] = loose.map(file => ({ file, name: file.name }))
  const open: { entry: Entry; name: string }[] = entries.map(entry => ({ entry, name: entry.name }))
  for (let next = open.pop(); next; next = open.pop()) {
    const { entry, name } = next
    if (entry.isFile) found.push({ file: await new Promise<File>((taken, failed) => entry.file!(taken, failed)), name })
    else if (entry.isDirectory) {
      const reader = entry.createReader!()
      // A reader gives some at a time, and none when there are no more.
      for (;;) {
        const some = await new Promise<Entry[]>((taken, failed) => reader.readEntries(taken, failed))
        if (some.length === 0) break
        open.push(...some.filter(each => !isHidden(each.name)).map(each => ({ entry: each, name: `${name}/${each.name}` })))
      }
    }
    if (found.length + open.length > MAX_FILES * 4 || found.length > MAX_FILES) throw new UsageError(say.form.manyFiles(MAX_FILES))
  }
  return checked(found)
}
