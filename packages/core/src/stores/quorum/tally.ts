import { MutexStoreError } from '../../errors.js'

/** More than half. */
export const majorityOf = (count: number): number => Math.floor(count / 2) + 1

/** Why so many of these masters could not be asked. */
export function failureOf(errors: readonly MutexStoreError[], masters: number): MutexStoreError {
  return new MutexStoreError(
    `${errors.length} of ${masters} masters failed: ${errors[0]?.message}`,
    {
      cause: new AggregateError(errors.map((error) => error.cause ?? error)),
    },
  )
}

/** What is asked of several masters: whether a majority of all says yes, told as soon as it is sure. */
export class Tally<T> {
  /**
   * Those who said yes, if they are a majority; `undefined` if they can't be. Rejects with
   * `MutexStoreError` when that depends on some who could not be asked.
   */
  readonly result: Promise<readonly T[] | undefined>
  readonly #masters: number
  readonly #yes: T[] = []
  readonly #errors: MutexStoreError[] = []
  #pending: number
  #resolve: (yes: readonly T[] | undefined) => void = () => {}
  #reject: (error: MutexStoreError) => void = () => {}

  /** @param asked how many of the masters are asked */
  constructor(masters: number, asked: number) {
    this.#masters = masters
    this.#pending = asked
    this.result = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    this.#look()
  }

  count(who: T, answer: boolean | MutexStoreError): void {
    this.#pending--
    if (answer instanceof MutexStoreError) this.#errors.push(answer)
    else if (answer) this.#yes.push(who)
    this.#look()
  }

  #look(): void {
    const majority = majorityOf(this.#masters)
    const most = this.#yes.length + this.#pending
    if (this.#yes.length >= majority) this.#resolve([...this.#yes])
    else if (most >= majority) return
    else if (most + this.#errors.length < majority) this.#resolve(undefined)
    else this.#reject(failureOf(this.#errors, this.#masters))
  }
}
