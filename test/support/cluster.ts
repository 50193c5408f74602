import { answer, command } from './command.js'
import { poll } from './poll.js'
import { type RedisServer, startRedis } from './redis.js'

export interface ClusterOptions {
  /** More arguments for each node. */
  args?: readonly string[]
}

/** What is to be done while a slot moves. */
export interface Migrating {
  /** Both nodes know of it, but no key has been moved yet. */
  begun?(): Promise<unknown>
  /** Half of its keys are there already. */
  halfway?(): Promise<unknown>
}

/** A Redis Cluster of three masters with a replica each. */
export interface ClusterDeployment {
  /** The three that were masters first, then their replicas in the same order. */
  readonly nodes: readonly RedisServer[]
  /** All that serve slots, by their own word. */
  masters(): Promise<RedisServer[]>
  /** Who serves this key's slot, by its own word; of two that say so, the newer one. */
  masterOf(key: string): Promise<RedisServer>
  /** Resolves with the key's new master once another than this one is it, for all nodes that run. */
  successorOf(old: RedisServer, key: string): Promise<RedisServer>
  /** Resolves once all nodes that run serve all slots, and every replica is up to date. */
  settled(): Promise<void>
  /**
   * Moves the slot of this key to another master, with all keys in it.
   * @param steps run on the way
   */
  migrate(key: string, to: RedisServer, steps?: Migrating): Promise<void>
  stop(): Promise<void>
}

const SLOTS = 16_384
const MASTERS = 3

/** Starts it, and waits until it serves. */
export async function startCluster({ args = [] }: ClusterOptions = {}): Promise<ClusterDeployment> {
  const options = {
    args: [
      ...['--cluster-enabled', 'yes', '--cluster-node-timeout', '1000'],
      // However long a replica was cut off, it may be all there is.
      ...['--cluster-replica-validity-factor', '0', '--cluster-allow-replica-migration', 'no'],
      ...['--repl-diskless-sync-delay', '0'],
      ...args,
    ],
  }
  const started = await Promise.allSettled(
    Array.from({ length: 2 * MASTERS }, () => startRedis(options)),
  )
  const nodes = started.flatMap((start) => (start.status === 'fulfilled' ? [start.value] : []))
  const deployment = new Deployment(nodes)
  try {
    for (const start of started) if (start.status === 'rejected') throw start.reason
    await deployment.form()
  } catch (error) {
    await deployment.stop()
    throw error
  }
  return deployment
}

/** One line of CLUSTER NODES. https://redis.io/docs/latest/commands/cluster-nodes/ */
interface Node {
  readonly id: string
  readonly port: number
  readonly flags: readonly string[]
  readonly epoch: number
  /** From and to, both included. */
  readonly slots: readonly (readonly [number, number])[]
}

class Deployment implements ClusterDeployment {
  constructor(readonly nodes: readonly RedisServer[]) {}

  async form(): Promise<void> {
    const masters = this.nodes.slice(0, MASTERS)
    const replicas = this.nodes.slice(MASTERS)
    for (const [index, { port }] of this.nodes.entries()) {
      await command(port, 'CLUSTER', 'SET-CONFIG-EPOCH', index + 1)
    }
    const bound = (index: number) => Math.floor((SLOTS * index) / MASTERS)
    for (const [index, { port }] of masters.entries()) {
      await command(port, 'CLUSTER', 'ADDSLOTSRANGE', bound(index), bound(index + 1) - 1)
    }
    const [first] = masters as [RedisServer]
    for (const { port } of this.nodes.slice(1)) {
      await command(port, 'CLUSTER', 'MEET', '127.0.0.1', first.port)
    }
    for (const [index, { port }] of replicas.entries()) {
      const master = masters[index] as RedisServer
      const id = String(await command(master.port, 'CLUSTER', 'MYID'))
      await poll('a replica knows its master', () =>
        command(port, 'CLUSTER', 'REPLICATE', id).catch(() => undefined),
      )
    }
    await this.settled()
  }

  async masters(): Promise<RedisServer[]> {
    return (await this.#views())
      .filter(({ nodes }) => nodes.some((node) => isSelf(node) && node.slots.length > 0))
      .map(({ server }) => server)
  }

  masterOf(key: string): Promise<RedisServer> {
    return poll(`a master of ${key}`, async () => this.#owner(await this.#slot(key)))
  }

  async successorOf(old: RedisServer, key: string): Promise<RedisServer> {
    const slot = await this.#slot(key)
    return poll('another master', async () => {
      const owner = await this.#owner(slot)
      if (!owner || owner === old) return undefined
      for (const { nodes } of await this.#views()) {
        const seen = nodes.find((node) => serves(node, slot))
        if (seen?.port !== owner.port && seen?.port !== old.port) return undefined
        // The old one may be back, and not know yet.
        if (seen.port === old.port) return undefined
      }
      return owner
    })
  }

  async settled(): Promise<void> {
    await poll('a whole Cluster', () => this.#isWhole(), 30_000)
  }

  async #isWhole(): Promise<boolean> {
    const views = await this.#views()
    const known = new Set(views.map(({ nodes }) => pictureOf(nodes)))
    if (known.size !== 1) return false
    for (const { server } of views) {
      const info = String(await answer(server.port, 'CLUSTER', 'INFO'))
      if (!info.includes('cluster_state:ok')) return false
      if (!info.includes(`cluster_slots_ok:${SLOTS}`)) return false
      const [role, , , link] = (await answer(server.port, 'ROLE')) as unknown[]
      if (role === 'slave' && link !== 'connected') return false
    }
    return true
  }

  async migrate(key: string, to: RedisServer, steps: Migrating = {}): Promise<void> {
    const slot = await this.#slot(key)
    const from = await this.masterOf(key)
    if (from === to) return
    const [source, target] = await Promise.all(
      [from, to].map(({ port }) => command(port, 'CLUSTER', 'MYID')),
    )
    await command(to.port, 'CLUSTER', 'SETSLOT', slot, 'IMPORTING', String(source))
    await command(from.port, 'CLUSTER', 'SETSLOT', slot, 'MIGRATING', String(target))
    const move = async (share: number) => {
      const keys = (await command(from.port, 'CLUSTER', 'GETKEYSINSLOT', slot, 1000)) as string[]
      const some = keys.slice(0, Math.ceil(keys.length * share))
      if (some.length === 0) return 0
      await command(from.port, 'MIGRATE', '127.0.0.1', to.port, '', 0, 1000, 'KEYS', ...some)
      return some.length
    }
    await steps.begun?.()
    await move(0.5)
    await steps.halfway?.()
    while ((await move(1)) > 0);
    await command(to.port, 'CLUSTER', 'SETSLOT', slot, 'NODE', String(target))
    await command(from.port, 'CLUSTER', 'SETSLOT', slot, 'NODE', String(target))
  }

  async #slot(key: string): Promise<number> {
    for (const { port } of this.nodes) {
      const slot = await answer(port, 'CLUSTER', 'KEYSLOT', key)
      if (slot !== undefined) return Number(slot)
    }
    throw new Error('no node of the Cluster answers')
  }

  async #owner(slot: number): Promise<RedisServer | undefined> {
    const claims = (await this.#views())
      .map(({ server, nodes }) => ({ server, self: nodes.find(isSelf) }))
      .filter(({ self }) => self && serves(self, slot))
      .sort((a, b) => (b.self?.epoch ?? 0) - (a.self?.epoch ?? 0))
    return claims[0]?.server
  }

  /** What each node that answers knows of all. */
  async #views(): Promise<{ server: RedisServer; nodes: Node[] }[]> {
    const views = await Promise.all(
      this.nodes.map(async (server) => ({
        server,
        text: await answer(server.port, 'CLUSTER', 'NODES'),
      })),
    )
    return views.flatMap(({ server, text }) =>
      typeof text === 'string' ? [{ server, nodes: parse(text) }] : [],
    )
  }

  async stop(): Promise<void> {
    await Promise.all(this.nodes.map((server) => server.stop()))
  }
}

function parse(text: string): Node[] {
  return text
    .trim()
    .split('\n')
    .map((line) => {
      const [id = '', address = '', flags = '', , , , epoch = '', , ...slots] = line.split(' ')
      return {
        id,
        port: Number(/:(\d+)@/.exec(address)?.[1]),
        flags: flags.split(','),
        epoch: Number(epoch),
        // Those that are being moved are in brackets.
        slots: slots
          .filter((range) => !range.startsWith('['))
          .map((range) => {
            const [from, to = from] = range.split('-').map(Number) as [number, number?]
            return [from, to] as const
          }),
      }
    })
}

const isSelf = (node: Node): boolean => node.flags.includes('myself')

const serves = ({ flags, slots }: Node, slot: number): boolean =>
  flags.includes('master') && slots.some(([from, to]) => from <= slot && slot <= to)

/** Who serves what, in a form that can be compared. */
const pictureOf = (nodes: Node[]): string =>
  nodes
    .map(({ id, flags, slots }) => {
      const role = flags.includes('master') ? 'master' : 'replica'
      return `${id} ${role} ${flags.some((flag) => flag.startsWith('fail'))} ${slots.join(' ')}`
    })
    .sort()
    .join('\n')
