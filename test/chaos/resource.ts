import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { clock } from './clock.js'
import type { Event } from './history.js'

/** What a client asks of the resource: to write under a lock's key, with its fencing token. */
export interface Write {
  readonly id: number
  readonly client: string
  readonly op: string
  readonly key: string
  readonly token: string
}

/** What a lock protects: it refuses a token that is lower than one it has seen, and notes all. */
export class Resource {
  readonly events: Event[] = []
  readonly #highest = new Map<string, bigint>()
  readonly #sockets = new Set<Socket>()
  readonly #server: Server = createServer((socket) => {
    this.#sockets.add(socket)
    socket.on('error', () => {}).on('close', () => this.#sockets.delete(socket))
    const lines = createInterface({ input: socket }).on('error', () => {})
    lines.on('line', (line) => {
      const write = JSON.parse(line) as Write
      socket.write(`${JSON.stringify({ id: write.id, accepted: this.#write(write) })}\n`)
    })
  })

  async start(): Promise<number> {
    this.#server.listen(0, '127.0.0.1')
    await once(this.#server, 'listening')
    return (this.#server.address() as { port: number }).port
  }

  #write({ client, op, key, token }: Write): boolean {
    const highest = this.#highest.get(key) ?? 0n
    const accepted = BigInt(token) >= highest
    if (accepted) this.#highest.set(key, BigInt(token))
    this.events.push({ e: 'write', t: clock(), client, op, key, token, accepted })
    return accepted
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    this.#server.close()
    await once(this.#server, 'close')
  }
}
