export { type Exclusive, type KeyOrFunction, withRedisMutex } from './decorator.js'
export {
  BlockTimeExceedError,
  ClientGoneError,
  MutexClosedError,
  MutexError,
  type MutexErrorCode,
  type MutexErrorOptions,
  MutexExpiredError,
  MutexLockError,
  MutexLostError,
  MutexQueueFullError,
  MutexReentryError,
  MutexStoreError,
  MutexUnlockError,
} from './errors.js'
export type { Lock } from './lock.js'
export type { MutexStats } from './member.js'
export { type AcquireOptions, Mutex } from './mutex.js'
export type { MutexOptions, Policy } from './options.js'
export { RedisMutex, type RedisMutexOptions } from './redis-mutex.js'
export { embeddedStore, memoryStore } from './stores/memory.js'
export { type QuorumStoreOptions, quorumStore } from './stores/quorum/quorum-store.js'
export type { RedisClient } from './stores/redis/client.js'
export { type RedisStoreOptions, redisStore } from './stores/redis/redis-store.js'
export type { WaitReplicas } from './stores/redis/replicas.js'
export type { Asker, Store, Tenure, Wish } from './stores/store.js'
export type { AcquireEvent, HoldEvent } from './tracing.js'
