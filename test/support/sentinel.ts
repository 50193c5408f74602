import { answer, command } from './command.js'
import { poll } from './poll.js'
import { type RedisServer, startRedis } from './redis.js'

export interface SentinelOptions {
  /** More arguments for each of the three servers. */
  args?: readonly string[]
}

/** A master with two replicas, and the three Sentinels that watch over them. */
export interface SentinelDeployment {
  /** What the Sentinels call the master, whichever server that is. */
  readonly name: string
  /** The one that was the master first is the first. */
  readonly nodes: readonly RedisServer[]
  readonly sentinels: readonly RedisServer[]
  /** The master, by the word of all Sentinels that answer, and its own. */
  master(): Promise<RedisServer>
  /** Resolves with the new master once another than this one is it. */
  successorOf(old: RedisServer): Promise<RedisServer>
  /** Starts a server that was killed, as a replica of the master: Sentinel takes 10 s for that. */
  rejoin(node: RedisServer): Promise<void>
  /** Resolves once every running server but the master is a replica of it, and up to date. */
  settled(): Promise<void>
  stop(): Promise<void>
}

const NAME = 'main'
const QUORUM = 2

/** Starts them, and waits until they know each other. */
export async function startSentinel({
  args = [],
}: SentinelOptions = {}): Promise<SentinelDeployment> {
  const started: RedisServer[] = []
  const start = async (...options: Parameters<typeof startRedis>) => {
    const server = await startRedis(...options)
    started.push(server)
    return server
  }
  try {
    const all = ['--repl-diskless-sync-delay', '0', ...args]
    // What a Sentinel changes is to last over a restart: it is written to the configuration file.
    const master = await start({ args: all, config: '' })
    const config = `replicaof 127.0.0.1 ${master.port}\n`
    const replicas = await Promise.all([1, 2].map(() => start({ args: all, config })))
    const watch = [
      `sentinel monitor ${NAME} 127.0.0.1 ${master.port} ${QUORUM}`,
      // A busy machine is not to have it replaced unasked: a server is frozen or killed for longer.
      `sentinel down-after-milliseconds ${NAME} 1500`,
      `sentinel failover-timeout ${NAME} 2000`,
      '',
    ].join('\n')
    const sentinels = await Promise.all(
      [1, 2, 3].map(() => start({ args: ['--sentinel'], config: watch })),
    )
    const deployment = new Deployment([master, ...replicas], sentinels)
    await deployment.ready()
    return deployment
  } catch (error) {
    await Promise.all(started.map((server) => server.stop()))
    throw error
  }
}

/** How long Sentinels have to put every server in its place, in ms. */
const HEAL = 3000

class Deployment implements SentinelDeployment {
  readonly name: string = NAME

  constructor(
    readonly nodes: readonly RedisServer[],
    readonly sentinels: readonly RedisServer[],
  ) {}

  /** Each Sentinel knows the two others, and two replicas that are up to date. */
  async ready(): Promise<void> {
    await this.settled()
    for (const { port } of this.sentinels) {
      await poll('each Sentinel knows the others', async () => {
        const others = await answer(port, 'SENTINEL', 'SENTINELS', NAME)
        const replicas = await answer(port, 'SENTINEL', 'REPLICAS', NAME)
        const quorum = String(await answer(port, 'SENTINEL', 'CKQUORUM', NAME))
        return size(others) === 2 && size(replicas) === 2 && quorum.startsWith('OK')
      })
    }
  }

  master(): Promise<RedisServer> {
    return poll('a master that is one', () => this.#master())
  }

  successorOf(old: RedisServer): Promise<RedisServer> {
    return poll('another master', async () => {
      const master = await this.#master()
      return master !== old && master
    })
  }

  /** Before all Sentinels name the same one, another of them may still be having its own elected. */
  async #master(): Promise<RedisServer | undefined> {
    const words = await Promise.all(
      this.sentinels.map(({ port }) => answer(port, 'SENTINEL', 'GET-MASTER-ADDR-BY-NAME', NAME)),
    )
    const ports = new Set(words.flatMap((word) => (Array.isArray(word) ? [Number(word[1])] : [])))
    const node = ports.size === 1 ? this.nodes.find(({ port }) => ports.has(port)) : undefined
    return node && (await roleOf(node))[0] === 'master' ? node : undefined
  }

  async rejoin(node: RedisServer): Promise<void> {
    const master = await this.master()
    await node.restart()
    // And the other one, if the failover did not come to it.
    await this.#follow(master)
  }

  async settled(): Promise<void> {
    const began = performance.now()
    await poll(
      'replicas of one master',
      async () => {
        const master = await this.#master()
        if (!master) return false
        for (const node of this.nodes) {
          if (node === master || !isRunning(node)) continue
          const [role, , port, link] = await roleOf(node)
          if (role === 'slave' && Number(port) === master.port) {
            if (link !== 'connected') return false
            continue
          }
          // Sentinels that were held up leave a server with the wrong master for a long time.
          if (performance.now() - began > HEAL) await this.#follow(master)
          return false
        }
        return true
      },
      90_000,
    ).catch(async (error: Error) => {
      const words = this.sentinels.map(({ port }) =>
        answer(port, 'SENTINEL', 'GET-MASTER-ADDR-BY-NAME', NAME),
      )
      const roles = this.nodes.map(async (node) => [node.port, ...(await roleOf(node)).slice(0, 4)])
      const all = [...(await Promise.all(words)), ...(await Promise.all(roles))]
      throw new Error(`${error.message}, but ${all.map(String).join('; ')}`)
    })
  }

  /** Those that follow nobody, or somebody else, follow this one: but for who loads its data still. */
  async #follow(master: RedisServer): Promise<void> {
    for (const node of this.nodes) {
      if (node === master || !isRunning(node)) continue
      const [role, , port] = await roleOf(node)
      if (role === 'slave' && Number(port) === master.port) continue
      await answer(node.port, 'REPLICAOF', '127.0.0.1', master.port)
      // As a Sentinel does: who took it for a master is to ask for the master anew.
      for (const type of ['normal', 'pubsub'])
        await answer(node.port, 'CLIENT', 'KILL', 'TYPE', type)
    }
  }

  async stop(): Promise<void> {
    // The Sentinels first: they would start a failover.
    for (const servers of [this.sentinels, this.nodes]) {
      await Promise.all(servers.map((server) => server.stop()))
    }
  }
}

async function roleOf(node: RedisServer): Promise<readonly unknown[]> {
  const role = await command(node.port, 'ROLE').catch(() => [])
  return Array.isArray(role) ? role : []
}

function isRunning(node: RedisServer): boolean {
  try {
    return node.pid > 0
  } catch {
    return false
  }
}

const size = (reply: unknown): number => (Array.isArray(reply) ? reply.length : 0)
