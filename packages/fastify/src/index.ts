export type { Lock, Mutex } from '@redismutex/core'
export type { RefusalError } from '@redismutex/core/request'
export type { LockHook, OnBusy, RequestLockOptions, RouteLockOptions } from './options.js'
export { requestLock, requestLock as default } from './plugin.js'
