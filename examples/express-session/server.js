// A session that loses no update. express-session reads it when a request comes and saves all of it
// with the answer, so of two requests at once one overwrites what the other has saved: unless it waits.
import { setTimeout as pause } from 'node:timers/promises'
import { requestLock } from '@redismutex/express'
import express from 'express'
import session from 'express-session'
import { Redis } from 'ioredis'

const { PORT = 3000, REDIS_URL, SESSION_SECRET = 'only for trying it out' } = process.env
const redis = REDIS_URL ? new Redis(REDIS_URL) : undefined

// One session, one request at a time. Without a Redis it locks inside this process.
const lock = requestLock({
  redis,
  keyFrom: (req) => /(?:^|;\s*)sid=([^;]+)/.exec(req.headers.cookie ?? '')?.[1],
})

const app = express()
app.use(express.json())
app.use(lock) // Before session(): read after the wait, saved before the next request's turn.
app.use(session({ name: 'sid', secret: SESSION_SECRET, resave: false, saveUninitialized: false }))

app.post('/wishes', async (req, res) => {
  const wishes = req.session.wishes ?? []
  await pause(100) // Looks the thing up, …
  req.session.wishes = [...wishes, req.body.wish]
  res.status(201).json(req.session.wishes)
})

app.get('/wishes', (req, res) => {
  res.json(req.session.wishes ?? [])
})

const server = app.listen(Number(PORT), (error) => {
  if (error) throw error
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  console.log(`listening on http://localhost:${port}`)
})

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, async () => {
    server.close(() => redis?.quit())
    await lock.close() // Who waits gets 503 now, who is at work may finish.
    setTimeout(() => server.closeAllConnections(), 1000).unref() // Who stays connected is cut off.
  })
}
