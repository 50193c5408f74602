import { EventEmitter, once, setMaxListeners } from 'node:events'
import { type IncomingHttpHeaders, type IncomingMessage, request } from 'node:http'
import { expect } from 'chai'

export interface Answer {
  readonly status: number | undefined
  readonly headers: IncomingHttpHeaders
  // biome-ignore lint/suspicious/noExplicitAny: whatever an example answers
  readonly body: any
}

export interface Ask {
  readonly method?: string
  readonly headers?: Record<string, string>
  readonly body?: object
  readonly signal?: AbortSignal
}

/** Asks on a connection of its own, which nobody has to wait for afterwards. */
export async function ask(url: string, { body, headers, ...rest }: Ask = {}): Promise<Answer> {
  const sent = request(url, {
    ...rest,
    agent: false,
    headers: { ...headers, ...(body && { 'content-type': 'application/json' }) },
  })
  // One that is called off after its response has come tells so twice.
  sent.on('error', () => {})
  sent.end(body && JSON.stringify(body))
  const [response] = (await once(sent, 'response')) as [IncomingMessage]
  const answered = (await response.setEncoding('utf8').toArray()).join('')
  return {
    status: response.statusCode,
    headers: response.headers,
    body: JSON.parse(answered),
  }
}

export function post(url: string, asked: Ask): Promise<Answer> {
  return ask(url, { method: 'POST', ...asked })
}

/** So many at once, the first one counted as 0. */
export function atOnce(count: number, send: (i: number) => Promise<Answer>): Promise<Answer[]> {
  return Promise.all(Array.from({ length: count }, (_, i) => send(i)))
}

/** Requests sent at once that are watched as they are answered. */
export class Flood {
  readonly answers: Answer[] = []
  readonly #calledOff = new AbortController()
  readonly #news = new EventEmitter()
  readonly #sent: Promise<unknown>[]

  constructor(
    readonly count: number,
    send: (signal: AbortSignal) => Promise<Answer>,
  ) {
    setMaxListeners(count, this.#calledOff.signal)
    this.#sent = Array.from({ length: count }, async () => {
      const answer = await send(this.#calledOff.signal)
      this.answers.push(answer)
      this.#news.emit('answer')
    })
  }

  /** How many have no answer yet. */
  get pending(): number {
    return this.count - this.answers.length
  }

  /** The first answer with this status. */
  async first(status: number): Promise<Answer> {
    for (;;) {
      const answer = this.answers.find((one) => one.status === status)
      if (answer) return answer
      await once(this.#news, 'answer')
    }
  }

  /** Resolves when all have been answered. */
  async end(): Promise<void> {
    await Promise.all(this.#sent)
  }

  /** Leaves without the answers that have not come yet. */
  async leave(): Promise<void> {
    this.#calledOff.abort()
    await Promise.allSettled(this.#sent)
  }
}

/** A refusal as clients get it: a problem document that says when to come again, and nothing else. */
export function expectRefusal(answer: Answer | undefined, status: number, code: string): void {
  expect(answer?.body).to.include({ status, code })
  expect(answer?.body).to.have.all.keys('type', 'title', 'status', 'detail', 'code')
  expect(answer?.status).to.equal(status)
  expect(answer?.headers['content-type']).to.match(/^application\/problem\+json/)
  expect(answer?.headers['cache-control']).to.equal('no-store')
  expect(Number(answer?.headers['retry-after'])).to.be.at.least(1)
}
