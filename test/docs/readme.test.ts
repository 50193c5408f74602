import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { RedisMutex } from '@redismutex/core'
import { requestLock } from '@redismutex/express'
import { expect } from 'chai'
import { mutexOptionNames, resolveOptions } from '../../packages/core/src/options.js'
import { requestLockOptionNames } from '../../packages/core/src/request/options.js'
import { redisStoreOptionNames } from '../../packages/core/src/stores/redis/redis-store.js'
import { until } from '../conformance/ground.js'
import { App } from '../examples/app.js'
import { ask, frameworks, redis, stores } from '../http/harness.js'
import { freePort } from '../support/ports.js'
import { sharedRedis } from '../support/redis.js'
import { type Block, Page, pages, root } from './readme.js'

const names = ['core', 'express', 'fastify'] as const
const [core, express, fastify] = names.map((name) => new Page(`packages/${name}/README.md`)) as [
  Page,
  Page,
  Page,
]
const front = new Page('README.md')
const readmes = [front, core, express, fastify]

describe('the documentation', () => {
  describe('links only to what there is', () => {
    for (const page of pages()) {
      it(page.path, () => {
        for (const link of page.links.filter((link) => !link.startsWith('https://'))) {
          const [path = '', anchor] = link.split('#')
          const target = path === '' ? page.path : join(dirname(page.path), path)
          expect(existsSync(join(root, target)), link).to.equal(true)
          if (anchor) expect(new Page(target).anchors).to.include(anchor)
        }
      })
    }

    for (const page of [core, express, fastify]) {
      it(`${page.path}, which stands alone on its npm page`, () => {
        expect(page.links.filter((link) => !link.startsWith('https://'))).to.deep.equal([])
        expect(page.text.split('\n').length).to.be.at.most(141)
      })
    }
  })

  it('names only tests that there are, and one for each trap', () => {
    const traps = new Page('docs/request-lifecycle.md').rows('')
    const numbered = traps.filter(([number = '']) => /^\d+$/.test(number))
    expect(numbered.map(([number]) => number)).to.deep.equal(
      Array.from({ length: 18 }, (_, i) => String(i + 1)),
    )
    for (const [number, , tests = ''] of numbered) {
      const named = [...tests.matchAll(/`(test\/\S+)`: ((?:“[^”]+”(?:, )?)+)/g)]
      expect(named, `the tests of trap ${number}`).to.not.have.length(0)
      for (const [, file = '', titles = ''] of named) {
        const source = readFileSync(join(root, file), 'utf8')
        for (const [, title = ''] of titles.matchAll(/“([^”]+)”/g)) {
          expect(source, file).to.include(title)
        }
      }
    }
  })

  it('names only scripts that there are', () => {
    const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
    for (const { text } of pages()) {
      for (const [, script = ''] of text.matchAll(/npx -y pnpm@12 (\w+)/g)) {
        expect(scripts).to.have.property(script)
      }
    }
  })

  describe('lists the options that there are, and their defaults', () => {
    const ofAdapters = resolveOptions(requestLock({ keyFrom: () => null }).mutex.options)
    const adapters = { ...told(), ...ofAdapters }
    const mutex = { ...told(), ...resolveOptions() }

    it('README.md', () => {
      const rows = front.rows('option')
      const own = mutexOptionNames.length + redisStoreOptionNames.length
      expectOptions(rows.slice(0, own), [...mutexOptionNames, ...redisStoreOptionNames], mutex)
      const others = requestLockOptionNames.filter(
        (name) => !mutexOptionNames.includes(name) && !redisStoreOptionNames.includes(name),
      )
      const different = ['expiry', 'lease', 'maxWaiting']
      expectOptions(rows.slice(own), [...others, ...different, 'hook'], adapters)
    })

    it(core.path, () => {
      const known = [...mutexOptionNames, ...redisStoreOptionNames]
      expectOptions(core.rows('option'), known, mutex)
    })

    it(express.path, () => {
      expectOptions(express.rows('option'), requestLockOptionNames, adapters)
    })

    it(fastify.path, () => {
      expectOptions(fastify.rows('option'), [...requestLockOptionNames, 'hook'], adapters)
    })

    it('what editors show of an option: its unit, and its default in the adapters', () => {
      const hints = hintsOf('core/src/options.ts')
      for (const time of ['blockTime', 'delay', 'expiry', 'lease', 'storeTimeout']) {
        expect(hints.get(time), time).to.match(/, in ms\b/)
      }
      for (const name of ['expiry', 'maxWaiting'] as const) {
        expect(told()[name], name).to.equal(String(ofAdapters[name]))
      }
    })
  })

  describe('shows refusals byte for byte', () => {
    const shown = readmes.flatMap((page) =>
      page.blocks.filter(({ language }) => language === 'http'),
    )

    for (const framework of frameworks) {
      it(`as ${framework.name} sends them`, async () => {
        const [memory] = stores
        const busy = await framework.start({ ...memory?.setup(), blockTime: 20 }, () => {})
        const lock = await busy.mutex.acquireLock('anna')
        const down = redis(await freePort(), { retryStrategy: null })
        const dead = await framework.start({ redis: down, storeTimeout: 500 }, () => {})
        const refused = { 409: await ask(busy.url, 'anna'), 503: await ask(dead.url, 'anna') }
        await lock.release()

        expect(shown).to.have.length(4)
        for (const { code } of shown) {
          const [head = '', body = ''] = code.split('\n\n')
          const [status = '', ...headers] = head.split('\n')
          const answer = refused[status.split(' ')[1] as '409' | '503']
          expect(answer.text).to.equal(body.trim())
          for (const header of headers) {
            const [name = '', value] = header.split(': ')
            expect(answer.headers.get(name), name).to.equal(value)
          }
        }
      })
    }
  })

  describe('has programs that run as they stand', () => {
    let folder: string
    let port: number

    /** As a user has it, but for the addresses. */
    function write({ file = '', code }: Block, index: number): string {
      const path = join(folder, String(index), file)
      mkdirSync(dirname(path), { recursive: true })
      const there = code
        .replaceAll('new Redis()', `new Redis('${sharedRedis().url}')`)
        .replaceAll('3000', String(port))
      writeFileSync(path, there)
      return path
    }

    const programs = readmes.flatMap((page) =>
      page.blocks
        .filter(({ language }) => language === 'js' || language === 'ts')
        .map((block) => ({ page, block })),
    )

    before(async () => {
      port = await freePort()
      const cache = fileURLToPath(new URL('../.cache', import.meta.url))
      mkdirSync(cache, { recursive: true })
      folder = mkdtempSync(join(cache, 'docs-'))
      programs.forEach(({ block }, index) => {
        write(block, index)
      })
      await compile(folder)
    })

    after(() => rmSync(folder, { recursive: true, force: true }))

    programs.forEach(({ page, block }, index) => {
      it(`${page.path}: ${block.file}`, async () => {
        const { file = '', code } = block
        expect(file, 'a program says its name in the first line').not.to.equal('')
        const app = new App(join(folder, String(index)), file.replace(/ts$/, 'js'), {})
        if (!code.includes('listen(')) {
          expect(await app.exited, app.output).to.equal(0)
          expect(app.output).not.to.equal('')
          return
        }
        await expectLocked(`http://127.0.0.1:${port}`)
        const ended = await app.stop()
        if (code.includes('SIGTERM')) expect(ended, app.output).to.equal(0)
      })
    })
  })
})

/** The defaults that the sources tell of the options that are no mutex's. */
function told(): Record<string, string> {
  const defaults: Record<string, string> = {}
  const sources = [
    'core/src/stores/redis/redis-store.ts',
    'core/src/request/options.ts',
    'fastify/src/options.ts',
  ]
  for (const source of sources) {
    for (const [name, hint] of hintsOf(source)) {
      defaults[name] = hint.match(/@default (.*)/)?.[1] ?? ''
    }
  }
  return defaults
}

/** What the comments of a source say of each option. */
function hintsOf(source: string): ReadonlyMap<string, string> {
  const text = readFileSync(join(root, 'packages', source), 'utf8')
  const hints = text.matchAll(/\/\*\*(.*?)\*\/\s+(\w+)\?:/gs)
  return new Map([...hints].map(([, hint = '', name = '']) => [name, hint]))
}

/** A table of just these options, with these defaults. */
function expectOptions(
  rows: readonly (readonly string[])[],
  known: readonly string[],
  defaults: Record<string, unknown>,
): void {
  const listed = rows.flatMap(([name = '', , value = '']) =>
    [...name.matchAll(/`(\w+)`/g)].map(([, name = '']) => [name, value] as const),
  )
  expect(listed.map(([name]) => name)).to.have.members(known)
  for (const [name, value] of listed) {
    expect(plain(value), name).to.equal(plain(String(defaults[name])))
  }
}

const plain = (text: string): string => text.replaceAll('`', '')

/** Checks and compiles the programs in TypeScript, as a user does: against what is built. */
async function compile(folder: string): Promise<void> {
  const config = {
    extends: '../../../tsconfig.base.json',
    compilerOptions: {
      ...{ composite: false, isolatedDeclarations: false, declarationMap: false, sourceMap: false },
      ...{ customConditions: [], rootDir: '.', outDir: '.', tsBuildInfoFile: null },
    },
    include: ['**/*.ts'],
    exclude: [],
  }
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(config))
  const tsc = join(root, 'node_modules/.bin/tsc')
  const compiled = promisify(execFile)(tsc, ['-p', folder])
  await compiled.catch(({ stdout }) => expect.fail(stdout))
}

/** A request waits for as long as somebody else holds its account, and is answered then. */
async function expectLocked(url: string): Promise<void> {
  const client = redis()
  const mutex = new RedisMutex(client)
  const account = randomUUID()
  await until(() =>
    fetch(url).then(
      () => true,
      () => false,
    ),
  )
  const lock = await mutex.acquireLock(`account:${account}`)
  const answer = ask(`${url}/accounts/${account}/withdrawals`, undefined)
  const queue = `redismutex:queue:{mutex:account:${account}}`
  await until(async () => (await client.zcard(queue)) === 1)
  await lock.release()
  const { status, text } = await answer
  expect(status, text).to.equal(200)
  expect(JSON.parse(text).account).to.equal(account)
  await mutex.close()
}
