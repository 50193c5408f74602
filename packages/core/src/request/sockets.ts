import type { Socket } from 'node:net'

/** Who wants to hear that a socket has closed. */
export interface SocketWatcher {
  socketClosed(): void
}

const WATCHERS: unique symbol = Symbol('redismutex.watchers')

/** On the socket itself: a WeakMap would cost more for each connection than all the rest. */
type Watched = Socket & { [WATCHERS]?: Set<SocketWatcher> }

/**
 * Tells `watcher` when the socket closes. One listener serves all requests of a connection: many can
 * be under way on it at once when a client pipelines.
 */
export function watchSocket(socket: Watched, watcher: SocketWatcher): void {
  const known = socket[WATCHERS]
  if (known) {
    known.add(watcher)
    return
  }
  const all = new Set([watcher])
  socket[WATCHERS] = all
  socket.once('close', () => {
    // Last first: the store is asked anew each time that the first in a line leaves.
    for (const one of [...all].reverse()) one.socketClosed()
    all.clear()
  })
}

export function unwatchSocket(socket: Watched, watcher: SocketWatcher): void {
  socket[WATCHERS]?.delete(watcher)
}
