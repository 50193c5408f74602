export type { Lock, Mutex } from '@redismutex/core'
export type { RefusalError } from '@redismutex/core/request'
export {
  type OnBusy,
  type RequestLock,
  type RequestLockOptions,
  requestLock,
} from './request-lock.js'
