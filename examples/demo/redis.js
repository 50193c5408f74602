import { Redis } from 'ioredis'

/** A client that is connected. It never tries again: a demo is to end when its Redis is not there. */
export async function connect(url) {
  const redis = new Redis(url, {
    lazyConnect: true,
    connectTimeout: 3000,
    retryStrategy: () => null,
  })
  let reason
  redis.on('error', (error) => {
    reason = error
  })
  try {
    await redis.connect()
    await redis.ping()
  } catch (error) {
    redis.disconnect()
    const { host, port } = redis.options
    const { message } = reason ?? error
    throw new Error(`The Redis at ${host}:${port}, from REDIS_URL, can't be used: ${message}`)
  }
  return redis
}
