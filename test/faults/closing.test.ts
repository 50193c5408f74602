import { expect } from 'chai'
import type { Redis } from 'ioredis'
import { until } from '../conformance/ground.js'
import { atEnd } from '../support/cleanup.js'
import { redisClients } from '../support/clients.js'
import { forkFixture } from '../support/processes.js'
import { startProxy, type TcpProxy } from '../support/proxy.js'
import { freshKey, type RedisServer, startRedis } from '../support/redis.js'

const [client] = redisClients as [(typeof redisClients)[number]]

interface Scene {
  readonly server: RedisServer
  readonly proxy: TcpProxy
  readonly look: Redis
}

const troubles: Record<string, (scene: Scene) => unknown> = {
  'all is well': () => {},
  'Redis is frozen': ({ server }) => server.pause(),
  'Redis is gone, and the way to it': async ({ server, proxy }) => {
    await server.kill()
    proxy.refuse()
    proxy.cut()
  },
  'the connections are half open': ({ proxy }) => proxy.pause(),
  'replies do not come': ({ proxy }) => proxy.pause('replies'),
  'scripts are refused': ({ look }) => look.call('ACL', 'SETUSER', 'default', '-evalsha', '-eval'),
}

describe('a process that closes its mutex ends by itself, and leaves no listener, when', () => {
  for (const [name, happen] of Object.entries(troubles)) {
    it(name, async () => {
      const server = await startRedis()
      atEnd(() => server.stop())
      const proxy = await startProxy(server.port)
      const look = client.create(server.port)
      const key = freshKey()
      await look.set(`mutex:${key}`, 'somebody', 'PX', 60_000)
      const fixture = new URL('./fixtures/closer.ts', import.meta.url)
      const closer = forkFixture(fixture, [String(proxy.port), key])
      await closer.next('ready')
      await until(async () => (await look.zcard(`redismutex:queue:{mutex:${key}}`)) === 1)
      await until(
        async () =>
          ((await look.pubsub('CHANNELS', 'redismutex:inbox:*')) as string[]).length === 1,
      )
      await happen({ server, proxy, look })
      closer.send({ type: 'close' })
      expect((await closer.next('closed')).left, 'a listener is left').to.equal(false)
      expect(await closer.exited).to.equal(0)
    })
  }
})
