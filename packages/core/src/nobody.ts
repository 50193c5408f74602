import { AsyncResource } from 'node:async_hooks'

const nobody = new AsyncResource('redismutex')

/**
 * Runs `body`, and all that comes of it, on nobody's behalf: what serves many, as a timer or a
 * connection, must not pass for a part of the request that happened to open it, nor keep it in memory.
 */
export function asNobody<T>(body: () => T): T {
  return nobody.runInAsyncScope(body)
}
