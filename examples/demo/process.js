// One server as a process of its own. It tells its address to the demo, and ends with it.
import { Accounts } from './accounts.js'
import { connect } from './redis.js'
import { startServer } from './server.js'

const [name, run = ''] = process.argv.slice(2)
const redis = await connect(process.env.REDIS_URL ?? '')
const server = await startServer(name, new Accounts(redis, run), redis)
process.once('disconnect', async () => {
  await server.close()
  await redis.quit()
})
process.send?.(server.url)
