import { setTimeout as sleep } from 'node:timers/promises'

/** Asks again and again for what no event tells of, until there is something. */
export async function poll<T>(
  what: string,
  look: () => Promise<T | undefined | false>,
  timeout = 15_000,
): Promise<T> {
  const deadline = performance.now() + timeout
  for (;;) {
    const found = await look()
    if (found !== undefined && found !== false) return found
    if (performance.now() > deadline) throw new Error(`not within ${timeout} ms: ${what}`)
    await sleep(20)
  }
}
