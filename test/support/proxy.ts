import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { atEnd } from './cleanup.js'
import { freePort } from './ports.js'

type Direction = 'requests' | 'replies'

/** A network between clients and a server that fails on demand. */
export interface TcpProxy {
  readonly port: number
  /** How many connections are open. */
  readonly connections: number
  /** Holds everything back for this long, each way. */
  delay(ms: number): void
  /**
   * Lets nothing pass, or nothing in one direction, not even the end of a connection; all sockets
   * stay open, as on a half-open connection. What comes meanwhile is kept for `resume`.
   */
  pause(direction?: Direction): void
  resume(): void
  /** Breaks every connection; what is on its way is lost. */
  cut(): void
  /**
   * Loses the next `which` chunks that the server sends, or the first that matches, and then breaks
   * the connections that lost one: TCP can't lose bytes and go on. The server has executed the
   * commands. Resolves when it is done.
   */
  dropReplies(which: number | ((reply: Buffer) => boolean)): Promise<void>
  /** Refuses new connections; those that are open stay. */
  refuse(): void
  accept(): Promise<void>
  stop(): Promise<void>
}

/** Starts a proxy in front of a port of the loopback interface; it stops at the end of the test. */
export async function startProxy(targetPort: number): Promise<TcpProxy> {
  for (let attempt = 1; ; attempt++) {
    const proxy = new ProxyServer(await freePort(), targetPort)
    try {
      await proxy.accept()
    } catch (error) {
      // Somebody was faster to take the port.
      if (attempt === 10) throw error
      continue
    }
    atEnd(() => proxy.stop())
    return proxy
  }
}

class ProxyServer implements TcpProxy {
  readonly port: number
  readonly paused = new Set<Direction>()
  latency = 0
  readonly #target: number
  readonly #links = new Set<Link>()
  #server: Server | undefined
  #loss: ((reply: Buffer) => boolean) | undefined

  constructor(port: number, target: number) {
    this.port = port
    this.#target = target
  }

  get connections(): number {
    return this.#links.size
  }

  delay(ms: number): void {
    this.latency = ms
  }

  pause(direction?: Direction): void {
    if (direction !== 'replies') this.paused.add('requests')
    if (direction !== 'requests') this.paused.add('replies')
  }

  resume(): void {
    this.paused.clear()
    for (const link of this.#links) link.resume()
  }

  cut(): void {
    for (const link of this.#links) link.break()
  }

  dropReplies(which: number | ((reply: Buffer) => boolean)): Promise<void> {
    return new Promise((resolve) => {
      let left = typeof which === 'number' ? which : 1
      this.#loss = (reply) => {
        if (typeof which === 'function' && !which(reply)) return false
        if (--left === 0) {
          this.#loss = undefined
          setImmediate(() => {
            for (const link of this.#links) if (link.isMute) link.break()
            resolve()
          })
        }
        return true
      }
    })
  }

  loses(reply: Buffer): boolean {
    return this.#loss?.(reply) ?? false
  }

  refuse(): void {
    this.#server?.close()
    this.#server = undefined
  }

  async accept(): Promise<void> {
    if (this.#server) return
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
      const link = new Link(this, client, this.#target, () => this.#links.delete(link))
      this.#links.add(link)
    })
    server.listen(this.port, '127.0.0.1')
    await once(server, 'listening')
    this.#server = server
  }

  async stop(): Promise<void> {
    const server = this.#server
    this.refuse()
    this.cut()
    if (server?.listening) await once(server, 'close')
  }
}

/** One client's connection and its way on to the server. */
class Link {
  /** It has lost a reply: no other may follow. */
  isMute = false
  readonly #sockets: readonly Socket[]
  readonly #pipes: readonly Pipe[]

  constructor(proxy: ProxyServer, client: Socket, target: number, onClosed: () => void) {
    const server = connect({ port: target, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
    this.#sockets = [client, server]
    const requests = new Pipe(proxy, 'requests', client, server)
    const replies = new Pipe(proxy, 'replies', server, client)
    this.#pipes = [requests, replies]

    client.on('data', (data) => requests.push(data))
    server.on('data', (data) => {
      if (proxy.loses(data)) this.isMute = true
      if (!this.isMute) replies.push(data)
    })
    for (const socket of this.#sockets) {
      socket.on('close', () => {
        if (client.destroyed && server.destroyed) onClosed()
      })
    }
  }

  resume(): void {
    for (const pipe of this.#pipes) pipe.flush()
  }

  break(): void {
    for (const socket of this.#sockets) socket.destroy()
  }
}

/** What passes in one direction of a connection, in order, each thing when it is due. */
class Pipe {
  readonly #proxy: ProxyServer
  readonly #direction: Direction
  readonly #to: Socket
  readonly #queue: { due: number; pass: () => void }[] = []
  #timer: NodeJS.Timeout | undefined

  constructor(proxy: ProxyServer, direction: Direction, from: Socket, to: Socket) {
    this.#proxy = proxy
    this.#direction = direction
    this.#to = to
    from.on('end', () => this.#enqueue(() => to.end()))
    from.on('error', () => {})
    from.on('close', (failed) => this.#enqueue(() => (failed ? to.destroy() : to.end())))
    to.on('close', () => clearTimeout(this.#timer))
  }

  push(data: Buffer): void {
    this.#enqueue(() => this.#to.write(data))
  }

  flush(): void {
    clearTimeout(this.#timer)
    while (!this.#proxy.paused.has(this.#direction)) {
      const head = this.#queue[0]
      if (!head || this.#to.destroyed) return
      const rest = head.due - performance.now()
      if (rest > 0) {
        this.#timer = setTimeout(() => this.flush(), rest)
        return
      }
      this.#queue.shift()
      head.pass()
    }
  }

  #enqueue(pass: () => void): void {
    this.#queue.push({ due: performance.now() + this.#proxy.latency, pass })
    this.flush()
  }
}
