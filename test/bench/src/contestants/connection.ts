import { once } from 'node:events'
import { Redis } from 'ioredis'

/** The client that all but one contestant use, at its defaults. */
export async function connect(port: number): Promise<Redis> {
  const redis = new Redis({ host: '127.0.0.1', port })
  if (redis.status !== 'ready') await once(redis, 'ready')
  return redis
}
