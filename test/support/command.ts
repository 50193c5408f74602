import { Redis } from 'ioredis'

const TIMEOUT = 1000

/** Sends one command to the server on this port, by a connection of its own: to it and no other. */
export async function command(
  port: number,
  name: string,
  ...args: (string | number)[]
): Promise<unknown> {
  const redis = new Redis({
    host: '127.0.0.1',
    port,
    lazyConnect: true,
    enableReadyCheck: false,
    retryStrategy: null,
    maxRetriesPerRequest: 0,
    connectTimeout: TIMEOUT,
    commandTimeout: TIMEOUT,
  })
  redis.on('error', () => {})
  try {
    await redis.connect()
    return await redis.call(name, ...args)
  } finally {
    redis.disconnect()
    redis.stream?.destroy()
  }
}

/** The same, but `undefined` where there is no answer: of a server that is down or says no. */
export function answer(port: number, name: string, ...args: (string | number)[]): Promise<unknown> {
  return command(port, name, ...args).catch(() => undefined)
}
