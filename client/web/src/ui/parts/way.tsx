/** Which way packets go to a node, in words, for as long as it is shown. */
import { useEffect, useState } from 'preact/hooks'
import type { NodeClient, Path } from '../../net/api.ts'
import { say } from '../texts.ts'

const wordsOf = ({ route, relay, turn }: Path): string => {
  if (turn !== undefined) return say.ways.turn(turn)
  return route === 'relay' ? say.ways.relay(relay?.host) : say.ways[route]
}

export function Way({ node }: { node: NodeClient }) {
  const [path, setPath] = useState(node.path)
  useEffect(() => {
    setPath(node.path)
    return node.on(news => {
      if (news.type === 'path') setPath(news.path)
    })
  }, [node])
  return path ? <span title={say.ways.about[path.turn === undefined ? path.route : 'turn']}>{wordsOf(path)}</span> : null
}
