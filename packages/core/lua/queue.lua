-- What the four scripts share; each of them is loaded with this in front.
--
-- Of each mutex there are, in one Cluster slot:
--   lock   string      the owner, expiring with its lease
--   queue  sorted set  an entry for each process that waits; score: when its oldest waiter began to
--                      wait, in microseconds on this server's clock
--   fence  string      '<last token reserved>|<last owner that released>', short-lived
--
-- An owner is '<instance>|<n>', an entry '<owner>|<claim>|<patience>': for how long (ms) a grant
-- holds until its owner has confirmed it by a renewal, and for how long (ms) the waiter waits in all
-- (0: for ever). Each process listens on one channel, 'redismutex:inbox:<instance>'.

local BLOCK = 1000          -- tokens reserved at a time, for hand-overs inside a process
local FENCE_MS = 10000      -- how long a fence outlives its lock

-- Read once: all items of a call happen at the same time.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function whole(number)
  return string.format('%.0f', number)
end

-- Tells a process something, if the owner is of this library's making. A server that refuses
-- PUBLISH only makes everybody poll.
local function tell(owner, message)
  local instance, n = string.match(owner, '^([%w_-]+)|(%d+)$')
  if instance and #instance == 22 then
    redis.pcall('PUBLISH', 'redismutex:inbox:' .. instance, message .. '|' .. n)
  end
end

local function last_of(fence)
  local last, releaser = string.match(redis.call('GET', fence) or '', '^(%d+)|(.*)$')
  return tonumber(last or 0), releaser or ''
end

-- Reserves tokens that are higher than all before, and gives the first and the last of them. Made from the clock,
-- they go on rising when the fence has expired or the data are gone.
local function reserve(fence, ms)
  local last, releaser = last_of(fence)
  local first = math.max(last + 1, now)
  last = whole(first + BLOCK - 1)
  redis.call('SET', fence, last .. '|' .. releaser, 'PX', ms + FENCE_MS)
  return whole(first), last
end

-- The first in the queue who is still waiting, or nothing. The others are removed.
local function head(queue)
  while true do
    local first = redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')
    local entry, since = first[1], tonumber(first[2])
    if not entry then return nil end
    local owner, claim, patience = string.match(entry, '^(.+)|(%d+)|(%d+)$')
    if owner and (patience == '0' or since + patience * 1000 > now) then
      return { entry = entry, owner = owner, claim = tonumber(claim), since = since }
    end
    redis.call('ZREM', queue, entry)
  end
end

-- Gives the free lock to the owner, who hears of it by this reply.
local function grant(lock, fence, owner, lease, others)
  local first, last = reserve(fence, lease)
  redis.call('SET', lock, owner, 'PX', lease)
  return { 1, first, last, others }
end

-- Gives the free lock to the head of the queue, who hears of it by a push: 'grant|<first
-- token>|<last token>|<others waiting>|<age of the head in microseconds>|<n>'.
local function promote(lock, queue, fence)
  local waiter = head(queue)
  if not waiter then return end
  local first, last = reserve(fence, waiter.claim)
  redis.call('SET', lock, waiter.owner, 'PX', waiter.claim)
  redis.call('ZREM', queue, waiter.entry)
  local others, age = redis.call('ZCARD', queue), whole(now - waiter.since)
  tell(waiter.owner, table.concat({ 'grant', first, last, others, age }, '|'))
end

-- One ask for the lock, by an owner that may have asked before: a command may come twice.
--   owner, tail  the entry is owner .. tail
--   waited       for how long the waiter has waited already, in microseconds
--   lease        in ms
--   keep         how long the queue must be kept for this waiter, in ms
--   wait         '1': enter the queue if it is not free; '0': a try
-- Gives {1, first token, last token, others waiting} granted; {0, ms} queued; {-1, ms} refused; ms being what
-- the holder has left (-1: for ever).
local function ask(lock, queue, fence, owner, tail, waited, lease, keep, wait)
  lease = tonumber(lease)
  local holder = redis.call('GET', lock)
  if holder == owner then
    -- Granted before. The asker counts the lease from when it asked last, so it must be as long.
    redis.call('PEXPIRE', lock, math.max(lease, redis.call('PTTL', lock)))
    redis.call('ZREM', queue, owner .. tail)
    local first, last = reserve(fence, lease)
    return { 1, first, last, redis.call('ZCARD', queue) }
  end
  if not holder and not head(queue) then return grant(lock, fence, owner, lease, 0) end
  if wait == '1' then
    redis.call('ZADD', queue, whole(now - waited), owner .. tail)
    if redis.call('PTTL', queue) < tonumber(keep) then redis.call('PEXPIRE', queue, keep) end
  end
  if holder then
    if wait == '1' then tell(holder, 'contended') end
  elseif head(queue).owner == owner then
    redis.call('ZREM', queue, owner .. tail)
    return grant(lock, fence, owner, lease, redis.call('ZCARD', queue))
  else
    -- Free: its holder vanished. Whoever has waited longest is next, and is not the one who asks.
    promote(lock, queue, fence)
  end
  return { wait == '1' and 0 or -1, redis.call('PTTL', lock) }
end

-- Calls verb(lock, queue, fence, arguments…) for each item: three keys and `arity` arguments each.
-- What one item fails with is its own result, {-2, message}: Redis takes nothing back, so the others
-- must be done and told.
local function each(arity, verb)
  local results = {}
  for item = 1, #KEYS / 3 do
    local k, a = item * 3 - 2, (item - 1) * arity
    local ok, result = pcall(verb, KEYS[k], KEYS[k + 1], KEYS[k + 2], unpack(ARGV, a + 1, a + arity))
    if not ok then
      local message = type(result) == 'table' and result.err or tostring(result)
      -- Nothing can have been written: as an error of the whole call, the client sees it too, and may
      -- know what to do about a primary that has been demoted.
      if string.find(message, '^READONLY') then return redis.error_reply(message) end
      result = { -2, message }
    end
    results[item] = result
  end
  return results
end

