import { execFile } from 'node:child_process'
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect } from 'chai'
import { publint } from 'publint'
import { formatMessage } from 'publint/utils'
import { App, embedded } from '../examples/app.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const fixtures = fileURLToPath(new URL('./fixtures', import.meta.url))

const packages = ['core', 'express', 'fastify']

/** What a user installs beside ours: in the versions that the tests use. */
const others = [
  ...['express', 'express-session', 'fastify', 'ioredis'],
  ...['@types/express', '@types/node'],
]

/** How many servers each of them has. */
const examples = { 'express-cart': 1, 'express-session': 1, 'fastify-orders': 1, commonjs: 2 }

describe('the packed packages', function () {
  this.timeout(120_000)

  let project: string

  before('pack them and install them into an empty project', async () => {
    project = mkdtempSync(join(tmpdir(), 'redismutex-'))
    await run('npx', ['-y', 'pnpm@12', ...pack(project)], root)
    cpSync(fixtures, project, { recursive: true })
    writeFileSync(join(project, 'package.json'), '{ "private": true }\n')
    await run('npm', [
      'install',
      ...['--no-audit', '--no-fund', '--no-save', '--ignore-scripts', '--prefer-offline'],
      ...packages.map((name) => `./${tarball(name)}`),
      ...others.map((name) => `${name}@${versionHere(name)}`),
    ])
  })

  after(() => rmSync(project, { recursive: true, force: true }))

  for (const name of packages) {
    describe(`@redismutex/${name}`, () => {
      it('has a manifest without what is only true in this workspace', () => {
        const manifest = readFileSync(installed(name, 'package.json'), 'utf8')
        expect(manifest).not.to.match(/@redismutex\/source|workspace:|catalog:/)
        expect(JSON.parse(manifest)).to.include({ license: 'MIT', type: 'module' })
      })

      it('contains its build and its sources, and nothing else', () => {
        const top = readdirSync(installed(name)).sort()
        const lua = name === 'core' ? ['lua'] : []
        expect(top).to.deep.equal(
          ['LICENSE', 'README.md', 'dist', ...lua, 'package.json', 'src'].sort(),
        )
        for (const file of files(name)) {
          expect(file).to.match(/\.(ts|js|map|lua|json|md)$|^LICENSE$/)
          expect(file).not.to.match(/\btests?\b/)
        }
      })

      it('was built from the sources that are in it', () => {
        const modules = (pattern: RegExp) =>
          files(name).flatMap((file) => file.match(pattern)?.[1] ?? [])
        const built = modules(/^dist\/(.*)\.js$/)
        expect(built).to.include('index')
        // A file that was deleted leaves its output behind: delete dist, too.
        expect(built).to.have.members(modules(/^src\/(.*)\.ts$/))
      })

      it('satisfies publint', async () => {
        const { messages, pkg } = await publint({
          pkgDir: installed(name),
          strict: true,
          pack: false,
        })
        expect(messages.map((message) => formatMessage(message, pkg))).to.deep.equal([])
      })

      it('has types that agree with its code', async () => {
        const attw = join(root, 'test/node_modules/.bin/attw')
        await run(attw, [tarball(name), '--profile', 'esm-only', '--no-color'])
      })
    })
  }

  it('are loaded by ES modules', () => run(process.execPath, ['app.mjs']))

  it('are loaded by CommonJS modules, as the same modules', () =>
    run(process.execPath, ['app.cjs']))

  for (const [example, servers] of Object.entries(examples)) {
    it(`run the example ${example}, copied as it is`, async () => {
      const copy = join(project, example)
      cpSync(join(root, 'examples', example, 'server.js'), join(copy, 'server.js'))
      const { type } = JSON.parse(read(root, 'examples', example, 'package.json'))
      writeFileSync(join(copy, 'package.json'), JSON.stringify({ type }))
      const app = new App(copy, 'server.js', embedded.env())
      await app.urls(servers)
      expect(await app.stop(), app.output).to.equal(0)
    })
  }

  it('are understood by TypeScript', () => run(join(root, 'node_modules/.bin/tsc'), []))

  function tarball(name: string): string {
    return `redismutex-${name}-${JSON.parse(read(root, `packages/${name}/package.json`)).version}.tgz`
  }

  function installed(name: string, file = ''): string {
    return join(project, 'node_modules/@redismutex', name, file)
  }

  function files(name: string): string[] {
    return readdirSync(installed(name), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => relative(installed(name), join(entry.parentPath, entry.name)))
  }

  /** In a plain Node.js: none of the flags that this process runs with. */
  async function run(command: string, args: string[], cwd = project): Promise<void> {
    const { NODE_OPTIONS: _, ...env } = process.env
    try {
      await promisify(execFile)(command, args, { cwd, env })
    } catch (error) {
      const { stdout, stderr } = error as { stdout: string; stderr: string }
      throw new Error(`${command} ${args.join(' ')} failed:\n${stdout}${stderr}`)
    }
  }
})

function pack(destination: string): string[] {
  return ['--recursive', '--filter', './packages/*', 'pack', '--pack-destination', destination]
}

function versionHere(name: string): string {
  return JSON.parse(read(root, `test/node_modules/${name}/package.json`)).version
}

function read(...path: string[]): string {
  return readFileSync(join(...path), 'utf8')
}
