import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Contestant } from '../contestants/contestant.js'
import { contestantNamed } from '../contestants/index.js'
import type { Guard, MakeServer } from '../servers/server.js'
import type { Program, Task } from './program.js'

export interface ServerRun {
  readonly framework: 'express' | 'fastify'
  /** What each request has to do under the lock, in ms of waiting. */
  readonly work: number
}

/** A web server whose requests take locks. */
export async function start({ contestant, port }: Task): Promise<Program> {
  const guard = await guardOf(contestantNamed(contestant), port)
  let server: Server | undefined
  return {
    steps: { listen, cpu },
    close: async () => {
      server?.close()
      server?.closeAllConnections()
    },
  }

  async function listen({ framework, work }: ServerRun): Promise<number> {
    server = await (await makerOf(framework))(guard, work)
    return (server.address() as AddressInfo).port
  }

  /** CPU time until now, in ms. */
  function cpu(): number {
    const { user, system } = process.cpuUsage()
    return (user + system) / 1000
  }
}

async function makerOf(framework: ServerRun['framework']): Promise<MakeServer> {
  if (framework === 'express') return (await import('../servers/express.js')).makeExpress
  return (await import('../servers/fastify.js')).makeFastify
}

async function guardOf(contestant: Contestant, port: number): Promise<Guard> {
  if (contestant.kind === 'floor') return { kind: 'none' }
  if (contestant.kind === 'ours') return { kind: 'adapter', port }
  return { kind: 'hand-written', locker: await contestant.open(port) }
}
