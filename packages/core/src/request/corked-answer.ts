import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { type LastBytes, override, sizeOf } from './last-bytes.js'

/**
 * On HTTP/1 the answer is ended by Node as ever, by way of all who have wrapped `end`; only its
 * socket is kept from sending, as if it were corked.
 */
export class CorkedAnswer implements LastBytes {
  /** The one that is kept from sending. */
  #socket: Socket | undefined
  #restore: (() => void) | undefined
  #flushed = false
  #streamed = false
  #timer: NodeJS.Timeout | undefined

  constructor(readonly res: ServerResponse) {
    const answer = this
    const { write } = res
    res.write = function (this: ServerResponse, ...args: unknown[]) {
      answer.#streamed = true
      return write.apply(this, args as never)
    } as typeof res.write
  }

  takes([chunk, encoding]: readonly unknown[], over: boolean): boolean {
    // A response that is queued has no socket yet: its client gets other answers first.
    const { socket } = this.res
    if (over || this.#flushed || this.#socket || !socket || socket.destroyed) return false
    // Of what was streamed in chunks the last one, which has nothing in it, is still to come.
    if (this.#streamed && sizeOf(chunk, encoding) === 0 && !this.res.chunkedEncoding) return false
    this.#hold(socket)
    return false
  }

  flush(): void {
    const socket = this.#socket
    if (!socket) return
    this.#socket = undefined
    this.#flushed = true
    clearTimeout(this.#timer)
    this.#restore?.()
    uncork(socket)
  }

  flushIn(ms: number): void {
    if (this.#socket) this.#timer ??= setTimeout(() => this.flush(), ms)
  }

  stay(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  /** Keeps the socket from sending, until it is known whether the end was in what is written now. */
  #cork(socket: Socket, inner: Socket['uncork']): void {
    socket.cork()
    // Node's own end writes too, and has ended it only then.
    process.nextTick(() => {
      // Who ends it later may wait for all that he wrote to be sent, by a socket that is busy, too.
      if (this.#socket && !this.res.writableEnded) uncork(socket, inner)
    })
  }

  /** Node uncorks a socket for good at the end of a response, so that corking it would not do. */
  #hold(socket: Socket): void {
    this.#socket = socket
    const answer = this
    const { destroy, uncork: inner, write } = socket
    const restores = [
      override(socket, 'uncork', () => {}),
      // Who compresses ends it later, by what he writes then.
      override(socket, 'write', function (this: Socket, ...args: unknown[]) {
        if (answer.#socket) answer.#cork(socket, inner)
        return write.apply(this, args as never)
      } as typeof write),
      // Whoever closes the connection after an answer means the answer to have been sent.
      override(socket, 'destroy', function (this: Socket, error?: Error) {
        answer.flush()
        return destroy.call(this, error)
      }),
    ]
    this.#restore = () => {
      for (const restore of restores) restore()
    }
    this.#cork(socket, inner)
    // One that was out but for its end is finished at once, and the next answer is due there.
    this.res.once('finish', () => this.flush())
    // It would be over now, and what is written too late be nobody's error, to end the process.
    this.res.once('prefinish', () => process.nextTick(() => this.res.on('error', () => {})))
  }
}

function uncork(socket: Socket, inner: Socket['uncork'] = socket.uncork): void {
  for (let corks = socket.writableCorked; corks > 0; corks--) inner.call(socket)
}
