import type { Socket } from 'node:net'

/** Who wants to hear that a socket has closed. */
export interface SocketWatcher {
  socketClosed(): void
}

const watchers = new WeakMap<Socket, Set<SocketWatcher>>()

/**
 * Tells `watcher` when the socket closes. One listener serves all requests of a connection: many can
 * be under way on it at once when a client pipelines.
 */
export function watchSocket(socket: Socket, watcher: SocketWatcher): void {
  const known = watchers.get(socket)
  if (known) {
    known.add(watcher)
    return
  }
  const all = new Set([watcher])
  watchers.set(socket, all)
  socket.once('close', () => {
    for (const one of all) one.socketClosed()
    all.clear()
  })
}

export function unwatchSocket(socket: Socket, watcher: SocketWatcher): void {
  watchers.get(socket)?.delete(watcher)
}
