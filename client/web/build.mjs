// Build the page: node build.mjs [--outdir DIR] [--entry FILE] [--dev]
// Files are named by their content, so they may be kept for ever; only index.html and sw.js keep their names.
import { rmSync, mkdirSync, readFileSync, writeFileSync, readdirSync, existsSync } from 'node:fs'
import { basename, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { parseArgs } from 'node:util'
import * as esbuild from 'esbuild'

const { values } = parseArgs({
  options: {
    outdir: { type: 'string' },
    entry: { type: 'string', default: 'src/main.tsx' },
    dev: { type: 'boolean', default: false }
  }
})
const here = import.meta.dirname
const outdir = values.outdir ?? join(here, 'dist')

const common = {
  absWorkingDir: here,
  bundle: true,
  format: 'esm',
  target: ['chrome120', 'firefox128', 'safari17'],
  minify: !values.dev,
  sourcemap: values.dev ? 'inline' : false,
  legalComments: 'none',
  logLevel: 'warning',
  jsx: 'automatic',
  jsxImportSource: 'preact'
}

rmSync(outdir, { recursive: true, force: true })
mkdirSync(outdir, { recursive: true })

// Media viewers and other rare parts are dynamic imports of their own, loaded when they are needed.
const built = await esbuild.build({
  ...common,
  entryPoints: { app: values.entry },
  outdir,
  splitting: true,
  entryNames: '[name]-[hash]',
  chunkNames: 'part-[hash]',
  assetNames: '[name]-[hash]',
  loader: { '.svg': 'file', '.woff2': 'file', '.png': 'file' },
  metafile: true
})
for (const name of ['sw.ts']) {
  const source = join(here, 'src', name)
  if (existsSync(source)) {
    await esbuild.build({ ...common, entryPoints: [source], outfile: join(outdir, name.replace('.ts', '.js')) })
  }
}

const [script] = Object.entries(built.metafile.outputs).find(([, output]) => output.entryPoint === values.entry)
const style = built.metafile.outputs[script].cssBundle
const page = readFileSync(join(here, 'src', 'index.html'), 'utf8')
  .replace('<!-- style -->', style ? `<link rel="stylesheet" href="${basename(style)}">` : '')
  .replace('<!-- script -->', `<script type="module" src="${basename(script)}"></script>`)
writeFileSync(join(outdir, 'index.html'), page)

const packed = name => gzipSync(readFileSync(join(outdir, name)), { level: 9 }).length
for (const name of readdirSync(outdir).sort()) console.log(`${String(packed(name)).padStart(8)} gz  ${name}`)
