/** Starts the Express or the Fastify server. The other framework is not even loaded. */
export async function startServer(name, accounts, redis) {
  const { start } = await import(`./${name}-server.js`)
  return start(accounts, redis)
}
