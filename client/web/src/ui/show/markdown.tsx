/**
 * Markdown as elements of the page, and nothing but those made here: what is written as HTML stays text, images are
 * named and not fetched, and links lead out of the page only on a click, without a word about where from.
 */
import { marked, type Token, type Tokens } from 'marked'
import type { ComponentChildren } from 'preact'
import { say } from '../texts.ts'

const MAX_TOKENS = 20_000
const MAX_DEPTH = 40

class Left {
  tokens = MAX_TOKENS
}

const unescape = (text: string): string =>
  text
    .replaceAll('&lt;', '<')
    .replaceAll('&gt;', '>')
    .replaceAll('&quot;', '"')
    .replaceAll('&#39;', "'")
    .replaceAll('&amp;', '&')

function inner(token: { tokens?: Token[]; text?: string }, left: Left, depth: number): ComponentChildren {
  return token.tokens ? all(token.tokens, left, depth + 1) : (token.text ?? '')
}

function all(tokens: readonly Token[], left: Left, depth: number): ComponentChildren[] {
  if (depth > MAX_DEPTH) return [say.show.deep]
  return tokens.map((token, index) => {
    left.tokens -= 1
    return left.tokens < 0 ? null : <One key={index} token={token} left={left} depth={depth} />
  })
}

/** Return a link's target when it is one that a person may want to follow. */
function outward(href: string): string | undefined {
  return /^(https?:\/\/|mailto:)/i.test(href) ? href : undefined
}

function One({ token, left, depth }: { token: Tokens.Generic; left: Left; depth: number }) {
  const children = () => inner(token, left, depth)
  switch (token.type) {
    case 'space':
    case 'def':
      return null
    case 'heading': {
      // Below the page's own headings.
      const Level = (['h3', 'h3', 'h4', 'h5', 'h6', 'h6'] as const)[Number(token['depth']) - 1] ?? 'h6'
      return <Level>{children()}</Level>
    }
    case 'paragraph':
      return <p>{children()}</p>
    case 'strong':
      return <strong>{children()}</strong>
    case 'em':
      return <em>{children()}</em>
    case 'del':
      return <del>{children()}</del>
    case 'codespan':
      return <code>{token['text'] as string}</code>
    case 'br':
      return <br />
    case 'hr':
      return <hr />
    case 'code':
      return (
        <pre tabIndex={0}>
          <code>{token['text'] as string}</code>
        </pre>
      )
    case 'blockquote':
      return <blockquote>{children()}</blockquote>
    case 'link': {
      const href = outward(token['href'] as string)
      return href ? (
        <a href={href} target="_blank" rel="noopener noreferrer nofollow">
          {children()}
        </a>
      ) : (
        <span>{children()}</span>
      )
    }
    case 'image':
      return <span class="muted">[{(token['text'] as string) || say.show.image}]</span>
    case 'list': {
      const items = (token as Tokens.List).items.map((item, index) => (
        <li key={index}>
          {item.task && <span aria-hidden="true">{item.checked ? '☑ ' : '☐ '}</span>}
          {all(item.tokens, left, depth + 1)}
        </li>
      ))
      return (token as Tokens.List).ordered ? <ol>{items}</ol> : <ul>{items}</ul>
    }
    case 'table': {
      const table = token as Tokens.Table
      return (
        <div class="scroll" tabIndex={0} role="group" aria-label={say.show.table}>
          <table class="table">
            <thead>
              <tr>
                {table.header.map((cell, index) => (
                  <th key={index} scope="col">
                    {all(cell.tokens, left, depth + 1)}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {table.rows.map((row, index) => (
                <tr key={index}>
                  {row.map((cell, column) => (
                    <td key={column}>{all(cell.tokens, left, depth + 1)}</td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )
    }
    case 'text':
    case 'escape':
      return <>{token.tokens ? children() : unescape(token['text'] as string)}</>
    default:
      // HTML among it: shown as it was written.
      return <>{token.raw}</>
  }
}

/** Show a text as Markdown. */
export function Markdown({ text }: { text: string }) {
  let tokens: Token[]
  try {
    tokens = marked.lexer(text, { gfm: true })
  } catch {
    return <pre class="plain">{text}</pre>
  }
  const left = new Left()
  const shown = all(tokens, left, 0)
  return (
    <div class="prose">
      {shown}
      {left.tokens < 0 && <p class="muted">{say.show.cut}</p>}
    </div>
  )
}
