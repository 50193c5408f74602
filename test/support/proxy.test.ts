import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { expect } from 'chai'
import { atEnd } from './cleanup.js'
import { startProxy, type TcpProxy } from './proxy.js'
import { freshKey, sharedRedis } from './redis.js'

/** Speaks to Redis without any client in between that would mend things. */
class Line {
  readonly socket: Socket
  received = ''

  constructor(port: number) {
    this.socket = connect(port, '127.0.0.1')
    this.socket.on('data', (data) => {
      this.received += data
    })
    this.socket.on('error', () => {})
    atEnd(() => this.socket.destroy())
  }

  async ask(command: string): Promise<string> {
    this.received = ''
    this.socket.write(`${command}\r\n`)
    await once(this.socket, 'data')
    return this.received.trim()
  }

  send(command: string): void {
    this.socket.write(`${command}\r\n`)
  }

  async closed(): Promise<void> {
    if (!this.socket.closed) await once(this.socket, 'close')
  }
}

describe('startProxy', () => {
  let proxy: TcpProxy
  let line: Line

  beforeEach(async () => {
    proxy = await startProxy(sharedRedis().port)
    line = new Line(proxy.port)
  })

  it('passes everything', async () => {
    const key = freshKey()
    const value = 'x'.repeat(200_000)
    expect(await line.ask(`SET ${key} 1 PX 10000`)).to.equal('+OK')
    expect(await line.ask(`GET ${key}`)).to.equal('$1\r\n1')
    line.received = ''
    line.send(`*2\r\n$4\r\nECHO\r\n$${value.length}\r\n${value}`)
    while (line.received.length < value.length + 11) await once(line.socket, 'data')
    expect(line.received).to.equal(`$${value.length}\r\n${value}\r\n`)
    expect(proxy.connections).to.equal(1)
  })

  it('delays each way, and keeps the order when the delay ends', async () => {
    await line.ask('PING')
    proxy.delay(40)
    const start = performance.now()
    line.send('ECHO 1')
    // The second chunk, sent without delay, has to come after the first.
    await new Promise((resolve) => setTimeout(resolve, 10))
    proxy.delay(0)
    line.received = ''
    line.send('ECHO 2')
    while (!line.received.includes('2')) await once(line.socket, 'data')
    expect(line.received).to.equal('$1\r\n1\r\n$1\r\n2\r\n')
    expect(performance.now() - start).to.be.within(38, 1000)

    proxy.delay(30)
    const again = performance.now()
    await line.ask('PING')
    expect(performance.now() - again).to.be.within(58, 1000)
  })

  it('cuts every connection, and takes new ones', async () => {
    const other = new Line(proxy.port)
    await Promise.all([line.ask('PING'), other.ask('PING')])
    proxy.cut()
    await Promise.all([line.closed(), other.closed()])
    expect(proxy.connections).to.equal(0)
    expect(await new Line(proxy.port).ask('PING')).to.equal('+PONG')
  })

  it('pauses: nothing passes and nothing closes, and all of it comes later', async () => {
    const key = freshKey()
    await line.ask('PING')
    line.received = ''
    proxy.pause()
    line.send(`SET ${key} 1 PX 10000`)
    await direct('PING')
    expect(await direct(`EXISTS ${key}`)).to.equal(':0')
    expect(line.received).to.equal('')
    proxy.resume()
    await once(line.socket, 'data')
    expect(line.received).to.equal('+OK\r\n')
    expect(await direct(`EXISTS ${key}`)).to.equal(':1')
  })

  it('pauses the replies only: the command is executed', async () => {
    const key = freshKey()
    await line.ask('PING')
    line.received = ''
    proxy.pause('replies')
    line.send(`SET ${key} 1 PX 10000`)
    while ((await direct(`EXISTS ${key}`)) === ':0');
    expect(line.received).to.equal('')
    proxy.resume()
    await once(line.socket, 'data')
    expect(line.received).to.equal('+OK\r\n')
  })

  it('keeps the end of a connection back while it is paused', async () => {
    await line.ask('PING')
    proxy.pause()
    line.send('QUIT')
    await direct('PING')
    expect(line.socket.closed).to.equal(false)
    proxy.resume()
    await line.closed()
  })

  it('loses a reply of a command that is executed, and the connection with it', async () => {
    const key = freshKey()
    await line.ask('PING')
    line.received = ''
    const dropped = proxy.dropReplies(1)
    line.send(`SET ${key} 1 PX 10000`)
    await dropped
    await line.closed()
    expect(line.received).to.equal('')
    expect(await direct(`EXISTS ${key}`)).to.equal(':1')
    expect(await new Line(proxy.port).ask('PING')).to.equal('+PONG')
  })

  it('loses the reply that matches', async () => {
    const dropped = proxy.dropReplies((reply) => reply.includes('secret'))
    expect(await line.ask('ECHO public')).to.equal('$6\r\npublic')
    line.send('ECHO secret')
    await dropped
    await line.closed()
    expect(line.received).not.to.include('secret')
  })

  it('loses several, and lets nothing pass between them', async () => {
    await line.ask('PING')
    const dropped = proxy.dropReplies(2)
    line.received = ''
    line.send('ECHO 1')
    await direct('PING')
    line.send('ECHO 2')
    await dropped
    await line.closed()
    expect(line.received).to.equal('')
  })

  it('refuses new connections only, until it accepts again', async () => {
    await line.ask('PING')
    proxy.refuse()
    const refused = new Line(proxy.port)
    const [error] = await once(refused.socket, 'error')
    expect(error).to.have.property('code', 'ECONNREFUSED')
    expect(await line.ask('PING')).to.equal('+PONG')
    await proxy.accept()
    expect(await new Line(proxy.port).ask('PING')).to.equal('+PONG')
  })

  it('closes the connection of a client when nobody is behind it', async () => {
    const nowhere = await startProxy(1)
    await new Line(nowhere.port).closed()
  })

  it('stops', async () => {
    await line.ask('PING')
    await proxy.stop()
    await line.closed()
    const [error] = await once(new Line(proxy.port).socket, 'error')
    expect(error).to.have.property('code', 'ECONNREFUSED')
  })

  /** Asks the server without the proxy. */
  function direct(command: string): Promise<string> {
    return new Line(sharedRedis().port).ask(command)
  }
})
