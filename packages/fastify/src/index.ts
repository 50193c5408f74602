export type { Lock, Mutex } from '@redismutex/core'
export type { OnBusy, RequestLockOptions, RouteLockOptions } from './options.js'
export { requestLock, requestLock as default } from './plugin.js'
