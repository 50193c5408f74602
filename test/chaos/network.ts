import { setTimeout as sleep } from 'node:timers/promises'
import { startProxy, type TcpProxy } from '../support/proxy.js'
import type { RedisServer } from '../support/redis.js'
import type { Seen } from './connection.js'
import type { Random } from './random.js'

/** What can happen between a client and the servers. */
export interface NetworkTrouble {
  readonly kind: string
  readonly weight: number
  /** How long it lasts, in ms. */
  length(random: Random, lease: number): number
  begin(proxy: TcpProxy, random: Random): void
  end(proxy: TcpProxy): unknown
}

const resume = (proxy: TcpProxy) => proxy.resume()
const briefly = (random: Random, lease: number) => random.between(20, lease / 2)
const long = (random: Random, lease: number) => lease * random.between(1.1, 2)

const halfOpen = (what: 'requests' | 'replies' | undefined, isLong: boolean): NetworkTrouble => ({
  kind: `${what ?? 'all'} held back${isLong ? ' beyond the lease' : ''}`,
  weight: isLong ? 0.5 : 1,
  length: isLong ? long : briefly,
  begin: (proxy) => proxy.pause(what),
  end: resume,
})

export const networkTroubles: readonly NetworkTrouble[] = [
  ...([undefined, 'requests', 'replies'] as const).flatMap((what) => [
    halfOpen(what, false),
    halfOpen(what, true),
  ]),
  {
    kind: 'slow',
    weight: 1,
    length: (random) => random.between(300, 2000),
    begin: (proxy, random) => proxy.delay(random.between(5, 80)),
    end: (proxy) => proxy.delay(0),
  },
  {
    kind: 'connections cut',
    weight: 3,
    length: () => 0,
    begin: (proxy) => proxy.cut(),
    end: () => {},
  },
  {
    kind: 'replies lost',
    weight: 4,
    length: (random) => random.between(0, 2000),
    begin: (proxy, random) => void lose(proxy, random),
    end: (proxy) => losing.delete(proxy),
  },
  {
    kind: 'connections refused',
    weight: 1,
    length: (random, lease) => random.between(20, 1.5 * lease),
    begin: (proxy) => {
      proxy.refuse()
      proxy.cut()
    },
    end: (proxy) => proxy.accept(),
  },
]

const losing = new Set<TcpProxy>()

/** Loses one reply after the other. */
async function lose(proxy: TcpProxy, random: Random): Promise<void> {
  losing.add(proxy)
  while (losing.has(proxy)) {
    await proxy.dropReplies(1)
    await sleep(random.between(20, 200))
  }
}

/** One client's ways to the servers: a proxy before each. */
export class Ways {
  readonly seen: Seen
  readonly #proxies: readonly TcpProxy[]
  /** Only one thing at a time goes wrong with each. */
  readonly #busy = new Set<TcpProxy>()

  private constructor(nodes: readonly RedisServer[], proxies: readonly TcpProxy[]) {
    this.seen = Object.fromEntries(
      nodes.map(({ port }, index) => [port, (proxies[index] as TcpProxy).port]),
    )
    this.#proxies = proxies
  }

  static async to(nodes: readonly RedisServer[]): Promise<Ways> {
    return new Ways(nodes, await Promise.all(nodes.map(({ port }) => startProxy(port))))
  }

  /** One of them that is well, or all that are. */
  free(random: Random): readonly TcpProxy[] {
    const well = this.#proxies.filter((proxy) => !this.#busy.has(proxy))
    return random.chance(0.5) || well.length < 2 ? well : [random.pick(well)]
  }

  async suffer(
    proxies: readonly TcpProxy[],
    trouble: NetworkTrouble,
    random: Random,
    wait: () => Promise<unknown>,
  ): Promise<void> {
    for (const proxy of proxies) {
      this.#busy.add(proxy)
      trouble.begin(proxy, random)
    }
    await wait()
    for (const proxy of proxies) {
      await trouble.end(proxy)
      this.#busy.delete(proxy)
    }
  }
}
