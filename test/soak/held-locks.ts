// Holds many locks for a while in one process, and tells what that costs: script calls for each round
// of renewals, memory for each lock. `pnpm soak [locks] [seconds]`
import { setTimeout as sleep } from 'node:timers/promises'
import { type Lock, RedisMutex } from '@redismutex/core'
import { Redis } from 'ioredis'
import { scriptCalls } from '../faults/stats.js'
import { freshPrefix, startRedis } from '../support/redis.js'

const [locks = 10_000, seconds = 60] = process.argv.slice(2).map(Number)
/** The default lease: renewed when half of it is gone. */
const LEASE = 10_000
/** Shorter than from one round to the next, longer than a round. */
const ROUND = 4_000
const STEP = 250

/** What is in use after a collection, in bytes. */
function used(): number {
  globalThis.gc?.()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

const server = await startRedis()
const [redis, look] = [new Redis(server.port), new Redis(server.port)]
const mutex = new RedisMutex(redis, {
  keyPrefix: freshPrefix(),
  lease: LEASE,
  expiry: Number.POSITIVE_INFINITY,
})

const keys = Array.from({ length: locks }, (_, n) => `key:${n}`)
// Redis is told first what the scripts are, or what it does not know would be sent twice.
const first = await mutex.with({ lease: 500 }).acquireLock('first')
await sleep(400)
await first.release()
const before = used()
const held: Lock[] = []
const began = performance.now()
for (let from = 0; from < keys.length; from += 500) {
  const some = keys.slice(from, from + 500).map((key) => mutex.acquireLock(key))
  held.push(...(await Promise.all(some)))
}
const acquired = performance.now()
console.log(`${locks} locks acquired in ${Math.round(acquired - began)} ms`)
const perLock = (used() - before) / locks
// Nobody has looked at a signal so far: it is made when it is first asked for.
const signals = held.map((lock) => lock.signal)
const perSignal = (used() - before) / locks - perLock

const cpu = process.cpuUsage()
const calls: number[] = []
for (let at = 0; at < seconds * 1000; at += STEP) {
  calls.push(await scriptCalls(look))
  await sleep(STEP)
}
const spent = process.cpuUsage(cpu)
const lost = signals.filter((signal) => signal.aborted).length
const [start = 0] = calls
const last = calls.at(-1) ?? 0
const rounds = calls.map((count, n) => count - (calls[Math.max(0, n - ROUND / STEP)] as number))
await Promise.all(held.map((lock) => lock.release()))
const left = (await look.keys('*')).filter((name) => name !== 'redismutex:fence')
await mutex.close()
redis.disconnect()
look.disconnect()
await server.stop()

console.log(`held for ${seconds} s; lost: ${lost}; keys left but for the fence: ${left.length}`)
console.log(`script calls in all: ${last - start}; most in one round: ${Math.max(...rounds)}`)
console.log(`CPU of this process: ${Math.round((spent.user + spent.system) / 1000 / seconds)} ms/s`)
console.log(`memory for each lock: ${Math.round(perLock)} bytes`)
console.log(`and for its signal, if anybody looks at it: ${Math.round(perSignal)} bytes`)
if (lost > 0 || left.length > 0 || Math.max(...rounds) > 110) process.exitCode = 1
