// An MCP host made with the client of the TypeScript SDK: lists, launches, answers and reads through `koco mcp`.
// node mcp-host.mjs ERA KOCO: one JSON line a step.
import { Client } from '@modelcontextprotocol/client'
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio'

const [era, command] = process.argv.slice(2)
const say = (step, found) => console.log(JSON.stringify({ step, ...found }))

const client = new Client(
  { name: 'kodo-interop', version: '1' },
  {
    capabilities: { elicitation: { form: {} } },
    versionNegotiation: { mode: era === 'legacy' ? 'legacy' : { pin: era } }
  }
)
client.setRequestHandler('elicitation/create', async request => {
  say('asked', { message: request.params.message, schema: request.params.requestedSchema })
  return { action: 'accept', content: { approved: true, why: 'by another host' } }
})
await client.connect(new StdioClientTransport({ command, args: ['mcp', '--no-lan'], env: process.env, stderr: 'inherit' }))
const { tools } = await client.listTools()
say('listed', { tools: tools.map(tool => tool.name) })
const named = end => tools.find(tool => tool.name.endsWith(end)).name

const made = await client.callTool({ name: named('_greet'), arguments: { name: 'Ada' } })
say('launched', { state: made.structuredContent.state, result: made.structuredContent.result })
const { uri } = made.content.find(part => part.type === 'resource_link')
const read = await client.readResource({ uri })
say('read', { text: read.contents[0].text })
const answered = await client.callTool({ name: named('_approve'), arguments: { topic: 'bikes' } })
say('answered', { result: answered.structuredContent.result })
await client.close()
