// One server as a process of its own. It tells its address to the demo, and ends with it.
import { Accounts } from './accounts.js'
import { startExpress } from './express-server.js'
import { startFastify } from './fastify-server.js'
import { connect } from './redis.js'

const [name, run = ''] = process.argv.slice(2)
const start = name === 'express' ? startExpress : startFastify

const redis = await connect(process.env.REDIS_URL ?? '')
const server = await start(new Accounts(redis, run), redis)
process.once('disconnect', async () => {
  await server.close()
  await redis.quit()
})
process.send?.(server.url)
