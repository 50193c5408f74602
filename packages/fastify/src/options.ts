import type { Lock, Mutex } from '@redismutex/core'
import {
  type LockOptions,
  type RefusalError,
  type RequestLockOptions as SharedOptions,
  shown,
} from '@redismutex/core/request'
import type { FastifyReply, FastifyRequest } from 'fastify'

/**
 * Answers a request that did not get its lock, as a handler does: by `reply.send`, or by what it
 * gives or throws. The error has `code`, `statusCode` and `headers`.
 */
export type OnBusy = (request: FastifyRequest, reply: FastifyReply, error: RefusalError) => unknown

/** What `config: { lock: … }` of a route may set; the rest is as the plugin has it. */
export interface RouteLockOptions extends LockOptions<FastifyRequest, OnBusy> {}

/** When a request may wait for its lock. */
export type LockHook = 'onRequest' | 'preParsing' | 'preValidation' | 'preHandler'

/** The options of the plugin. */
export interface RequestLockOptions extends SharedOptions<FastifyRequest, OnBusy> {
  /**
   * The hook in which requests wait. In `onRequest` and `preParsing` there is no body to make a key
   * from, and the wait counts against `server.requestTimeout` unless the body has arrived; in
   * `preValidation` the body is not validated.
   * @default 'preHandler'
   */
  hook?: LockHook | undefined
}

/** What the plugin sees to itself, and what Fastify makes of the options of any plugin. */
export const pluginOptionNames: readonly string[] = ['hook', 'prefix', 'logLevel', 'logSerializers']

const hooks: readonly LockHook[] = ['onRequest', 'preParsing', 'preValidation', 'preHandler']

/** @throws TypeError for a hook that there is not, or that comes too late */
export function assertHook(hook: unknown): asserts hook is LockHook {
  if (hooks.includes(hook as LockHook)) return
  throw new TypeError(`hook must be one of ${hooks.join(', ')}, got ${shown(hook)}`)
}

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Whether requests of this route take a lock, and on what terms. */
    lock?: boolean | RouteLockOptions
  }

  interface FastifyRequest {
    /** The lock that this request holds; of several, the one that it got last. */
    lock: Lock | null
  }

  interface FastifyInstance {
    /** What the routes of this context lock with, for work outside of requests, and for `stats()`. */
    mutex: Mutex
  }
}
