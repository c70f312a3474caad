// Unit tests in Node: node test.mjs [WORDS OF FILE NAMES]
import { rmSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { spawnSync } from 'node:child_process'
import * as esbuild from 'esbuild'

const here = import.meta.dirname
const words = process.argv.slice(2)
const files = readdirSync(join(here, 'test'), { recursive: true })
  .filter(name => name.endsWith('.test.ts') && (words.length === 0 || words.some(word => name.includes(word))))
  .sort()
if (files.length === 0) {
  console.error('no test has such a name')
  process.exit(2)
}
const outdir = join(here, 'build', 'test')
rmSync(outdir, { recursive: true, force: true })
await esbuild.build({
  absWorkingDir: here,
  entryPoints: files.map(name => join('test', name)),
  outbase: 'test',
  outdir,
  outExtension: { '.js': '.mjs' },
  bundle: true,
  packages: 'external',
  format: 'esm',
  platform: 'node',
  target: 'node20',
  sourcemap: 'inline',
  logLevel: 'warning',
  define: { 'process.env.VECTORS': JSON.stringify(join(here, '..', '..', 'tests', 'vectors')) }
})
const built = files.map(name => join(outdir, name.replace(/\.ts$/, '.mjs')))
const { status } = spawnSync(process.execPath, ['--enable-source-maps', '--test', ...built], { stdio: 'inherit' })
process.exit(status ?? 1)
