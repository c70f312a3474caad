/** Comma separated values (RFC 4180). Pure. */

/** Read comma (or semicolon, or tab) separated values (RFC 4180), at most some rows. */
export function readCsv(text: string, most: number): string[][] {
  const head = text.slice(0, text.indexOf('\n') < 0 ? text.length : text.indexOf('\n'))
  const separator = [',', ';', '\t'].reduce((best, each) => (head.split(each).length > head.split(best).length ? each : best), ',')
  const rows: string[][] = []
  let row: string[] = []
  let at = 0
  while (at <= text.length && rows.length < most) {
    let cell = ''
    if (text[at] === '"') {
      at += 1
      for (;;) {
        const end = text.indexOf('"', at)
        if (end < 0) {
          cell += text.slice(at)
          at = text.length
          break
        }
        cell += text.slice(at, end)
        at = end + 1
        if (text[at] !== '"') break
        cell += '"'
        at += 1
      }
    }
    let end = at
    while (end < text.length && text[end] !== separator && text[end] !== '\n') end += 1
    row.push((cell + text.slice(at, end)).replace(/\r$/, ''))
    if (end >= text.length || text[end] === '\n') {
      if (row.length > 1 || row[0] !== '') rows.push(row)
      row = []
      if (end >= text.length) break
    }
    at = end + 1
  }
  return rows
}
