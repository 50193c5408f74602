import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { expect } from 'chai'
import { atEnd } from './cleanup.js'
import { type RedisClient, redisClients } from './clients.js'
import { freePort } from './ports.js'
import { freshKey, freshPrefix, type RedisServer, sharedRedis, startRedis } from './redis.js'

async function start(options?: Parameters<typeof startRedis>[0]): Promise<RedisServer> {
  const server = await startRedis(options)
  atEnd(() => server.stop())
  return server
}

const [{ create }] = redisClients as [RedisClient]

describe('startRedis', () => {
  it('starts a server that keeps nothing', async () => {
    const server = await start()
    const client = create(server.port)
    expect(await client.ping()).to.equal('PONG')
    expect(await client.config('GET', 'save')).to.deep.equal(['save', ''])
    expect(await client.config('GET', 'appendonly')).to.deep.equal(['appendonly', 'no'])
    expect(server.url).to.equal(`redis://127.0.0.1:${server.port}`)
  })

  it('passes arguments on', async () => {
    const { port } = await start({ args: ['--maxmemory', '3mb'] })
    expect(await create(port).config('GET', 'maxmemory')).to.deep.equal(['maxmemory', '3145728'])
  })

  it('knows when a server with a password is up', async () => {
    const { port } = await start({ args: ['--requirepass', 'secret'] })
    expect(await create(port, { password: 'secret' }).ping()).to.equal('PONG')
  })

  it('rejects when the port it was told to take is taken', async () => {
    const { port } = await start()
    const error = await startRedis({ port }).catch((error: unknown) => error)
    expect(error)
      .to.be.an('error')
      .with.property('message')
      .that.matches(/already in use/i)
  })

  it('is not deceived by another server on its port', async () => {
    const port = await freePort()
    const impostor = createServer((socket) => socket.end('+PONG\r\n')).listen(port, '127.0.0.1')
    await once(impostor, 'listening')
    atEnd(() => impostor.close())
    expect(await startRedis({ port }).catch((error: unknown) => error)).to.be.an('error')
  })

  it('tells what the server said when it does not start', async () => {
    const error = await startRedis({ args: ['--no-such-option', '1'] }).catch((error) => error)
    expect(error)
      .to.be.an('error')
      .with.property('message')
      .that.matches(/ended before/)
  })

  it('stops, and removes its directory', async () => {
    const server = await start()
    const [, directory] = (await create(server.port).config('GET', 'dir')) as [string, string]
    expect(existsSync(directory)).to.equal(true)
    await server.stop()
    expect(existsSync(directory)).to.equal(false)
    expect(await answers(server.port)).to.equal(false)
    expect(() => server.pid).to.throw(/does not run/)
  })

  it('is killed, and starts again on the same port, empty', async () => {
    const server = await start()
    const { port, pid } = server
    await create(port).set('a', '1')
    await server.kill()
    expect(await answers(port)).to.equal(false)
    await server.restart()
    expect(server.port).to.equal(port)
    expect(server.pid).not.to.equal(pid)
    expect(await create(port).get('a')).to.equal(null)
  })

  it('freezes and goes on', async () => {
    const server = await start()
    const client = create(server.port)
    await client.ping()
    server.pause()
    let pending = true
    const pong = client.ping().finally(() => {
      pending = false
    })
    expect(await answers(server.port, 100)).to.equal(false)
    expect(pending).to.equal(true)
    server.resume()
    expect(await pong).to.equal('PONG')
  })

  it('stops a frozen server', async () => {
    const server = await start()
    server.pause()
    await server.stop()
    expect(await answers(server.port)).to.equal(false)
  })
})

describe('sharedRedis', () => {
  for (const client of redisClients) {
    it(`is reached with ${client.name}`, async () => {
      const { port } = sharedRedis()
      const key = freshKey()
      const redis = client.create(port)
      await redis.set(key, client.name)
      expect(await redis.get(key)).to.equal(client.name)
      await redis.del(key)
    })
  }

  it('gives keys and prefixes that nobody else uses', () => {
    expect(freshKey()).not.to.equal(freshKey())
    expect(freshPrefix()).not.to.equal(freshPrefix())
  })
})

describe('redisClients', () => {
  for (const client of redisClients) {
    describe(client.name, () => {
      const created: ReturnType<RedisClient['create']>[] = []

      it('connects, or waits, or tries again', async () => {
        const server = await start()
        const frozen = client.create(server.port)
        await frozen.ping()
        server.pause()
        const refused = client.create(await freePort())
        await new Promise((resolve) => refused.once('reconnecting', resolve))
        const ready = client.create(sharedRedis().port)
        await ready.ping()
        const connecting = client.create(sharedRedis().port)
        const lazy = client.create(sharedRedis().port, { lazyConnect: true })
        created.push(frozen, refused, ready, connecting, lazy)
        expect(created.map((redis) => redis.status)).to.deep.equal([
          'ready',
          'reconnecting',
          'ready',
          'connecting',
          'wait',
        ])
      })

      it('is disconnected at the end of the test, whatever it did', () => {
        const [frozen, refused, ...others] = created.map((redis) => redis.status)
        expect([frozen, ...others]).to.deep.equal(['end', 'end', 'end', 'end'])
        expect(refused).to.equal('reconnecting')
      })
    })
  }
})

/** Whether a server takes connections here and answers within this time. */
function answers(port: number, timeout = 1000): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => socket.write('PING\r\n'))
    socket.setTimeout(timeout, () => socket.destroy())
    socket.once('data', () => {
      resolve(true)
      socket.destroy()
    })
    socket.on('error', () => {})
    socket.on('close', () => resolve(false))
  })
}
