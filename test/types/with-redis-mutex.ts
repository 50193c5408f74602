/** What the type checker must accept of the decorator, and what it must not. Nothing here is run. */
import { withRedisMutex } from '@redismutex/core'
import { Cluster, Redis } from 'ioredis'
import { type Equal, holds } from './equal.js'

interface User {
  readonly id: number
}

const redis = new Redis()

// Functions keep their arguments, and give promises.

const save = withRedisMutex(redis, 'static')(async (id: number, name?: string) => `${id}${name}`)
holds<
  Equal<
    typeof save extends (this: never, ...args: infer A) => infer R ? [A, R] : never,
    [[id: number, name?: string | undefined], Promise<string>]
  >
>()
holds<Equal<Awaited<ReturnType<typeof save>>, string>>()
await save(1)
await save(1, 'name')
// @ts-expect-error an argument is missing
await save()
// @ts-expect-error a wrong argument
await save('1')

const sync = withRedisMutex(redis, ['a', 'b'])(() => 1)
holds<Equal<Awaited<ReturnType<typeof sync>>, number>>()

withRedisMutex(new Cluster([]), 'key', { blockTime: 5, keyPrefix: '' })

// The key is made from the first arguments, or from all.

const byUser = withRedisMutex(redis, (user: User) => `user:${user.id}`)
const rename = byUser(async (user: User, name: string) => ({ ...user, name }))
holds<Equal<Awaited<ReturnType<typeof rename>>, { name: string; id: number }>>()
await rename({ id: 1 }, 'name')
// @ts-expect-error an argument is missing
await rename({ id: 1 })
byUser(async (user: User & { name: string }) => user.name)
// @ts-expect-error the key can't be made from a number
byUser(async (id: number) => id)

// A function may ignore what its key is made from; it is called with it all the same.
const ignoring = byUser(async () => {})
await ignoring({ id: 1 })
// @ts-expect-error the key needs it
await ignoring()

withRedisMutex(redis, async (id: number) => [`a:${id}`, `b:${id}`])((id: number) => id)
withRedisMutex(redis, () => 'key')((id: number) => id)
withRedisMutex(redis, (...ids: number[]) => ids.map(String))((_one: number, _other: number) => {})
// @ts-expect-error a key is a string
withRedisMutex(redis, (user: User) => user.id)
// @ts-expect-error a number is no key
withRedisMutex(redis, 42)
// @ts-expect-error a key is needed
withRedisMutex(redis)
// @ts-expect-error nobody knows the option
withRedisMutex(redis, 'key', { blocktime: 5 })
// @ts-expect-error what is no function
withRedisMutex(redis, 'key')('body')

// Methods

export class Cart {
  readonly owner: string = 'owner'

  @withRedisMutex(redis, (id: string) => `cart:${id}`)
  async add(id: string, count: number): Promise<number> {
    return id.length + count
  }

  @withRedisMutex(redis, function (this: Cart, id: string) {
    return `${this.owner}:${id}`
  })
  async remove(id: string): Promise<string> {
    return id
  }

  @withRedisMutex(redis, 'carts')
  static async all(): Promise<string[]> {
    return []
  }

  // @ts-expect-error it would give a promise, and says that it does not
  @withRedisMutex(redis, 'key')
  count(): number {
    return 1
  }

  // @ts-expect-error only methods
  @withRedisMutex(redis, 'key')
  field: string = ''

  // @ts-expect-error the key can't be made from a number
  @withRedisMutex(redis, (id: string) => id)
  async wrong(id: number): Promise<number> {
    return id
  }
}
