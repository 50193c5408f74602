-- What the four scripts share; each of them is loaded with this in front.
--
-- KEYS[1] is the fence; then come, for each item, a lock and its queue.
--   lock   string      the owner, expiring with its lease
--   queue  sorted set  an entry for each process that waits; score: when its oldest waiter began to
--                      wait, in microseconds on this server's clock
--   fence  string      the highest fencing token so far: of all locks on a server, or on a Cluster of
--                      this one; short-lived
--
-- An owner is '<instance>|<n>', an entry '<owner>|<stay>', a stay '<claim>|<patience>': for how long
-- (ms) a grant holds until its owner has confirmed it by a renewal, and for how long (ms) the waiter
-- waits in all (0: for ever). Terms are '<stay>|<waited>|<keep>': for how long the waiter has waited
-- already, in microseconds, and how long the queue must be kept for it, in ms; or '' for a try.
-- Each process listens on one channel, 'redismutex:inbox:<instance>'.

local FENCE_MS = 10000      -- how long the fence outlives the last token

local call, match = redis.call, string.match

-- All items of a call happen at the same time, which is asked for if any needs it.
local time
local function now()
  if not time then
    local clock = call('TIME')
    time = clock[1] * 1000000 + clock[2]
  end
  return time
end

local function whole(number)
  return string.format('%.0f', number)
end

-- Fencing tokens are the time in microseconds, or more where that would not rise: in one call, or
-- when the clock has been put back. The fence is read and written once a call.
local highest, risen
local function raise(token)
  highest = highest or tonumber(call('GET', KEYS[1])) or 0
  if token <= highest then return false end
  highest, risen = token, true
  return true
end

local function next_token()
  if not raise(now()) then raise(highest + 1) end
  return highest
end

-- Tells a process something, if the owner is of this library's making. A server that refuses
-- PUBLISH only makes everybody poll.
local function tell(owner, message)
  local instance, n = match(owner, '^([%w_-]+)|(%d+)$')
  if instance and #instance == 22 then
    redis.pcall('PUBLISH', 'redismutex:inbox:' .. instance, message .. '|' .. n)
  end
end

local function enter(queue, owner, terms)
  local stay, waited, keep = match(terms, '^(%d+|%d+)|(%d+)|(%d+)$')
  call('ZADD', queue, now() - waited, owner .. '|' .. stay)
  if call('PTTL', queue) < tonumber(keep) then call('PEXPIRE', queue, keep) end
end

-- The first in the queue who is still waiting, or nothing. The others are removed.
local function head(queue)
  while true do
    local first = call('ZRANGE', queue, 0, 0, 'WITHSCORES')
    local entry, since = first[1], tonumber(first[2])
    if not entry then return nil end
    local owner, claim, patience = match(entry, '^(.+)|(%d+)|(%d+)$')
    if owner and (patience == '0' or since + patience * 1000 > now()) then
      return { entry = entry, owner = owner, claim = tonumber(claim), since = since }
    end
    call('ZREM', queue, entry)
  end
end

-- Gives a lock to the head of its queue, who hears of it by a push:
-- 'grant|<token>|<others waiting>|<age of the head in microseconds>|<n>'.
local function give(lock, queue, waiter)
  local token = next_token()
  call('SET', lock, waiter.owner, 'PX', waiter.claim)
  call('ZREM', queue, waiter.entry)
  local others, age = call('ZCARD', queue), whole(now() - waiter.since)
  tell(waiter.owner, table.concat({ 'grant', whole(token), others, age }, '|'))
end

-- Gives a free lock to whoever has waited longest, if anybody waits.
local function promote(lock, queue)
  local waiter = head(queue)
  if waiter then give(lock, queue, waiter) end
end

-- One ask for the lock, by an owner that may have asked before: a command may come twice. Gives
--   token             granted for the whole lease; nobody else waits
--   {token, others}   granted; so many others wait
--   {0, ms}           queued; the holder has ms left (-1: for ever)
--   {-1, ms}          a try, refused; the same
local function ask(lock, queue, owner, lease, terms)
  if call('SET', lock, owner, 'NX', 'PX', lease) then
    if call('EXISTS', queue) == 0 then return next_token() end
    -- It was free with others in the queue: its holder vanished. Whoever has waited longest is next.
    if terms ~= '' then enter(queue, owner, terms) end
    local first = head(queue)
    if first and first.owner ~= owner then
      give(lock, queue, first)
    else
      if first then call('ZREM', queue, first.entry) end
      return { next_token(), call('ZCARD', queue) }
    end
  else
    local holder = call('GET', lock)
    if holder == owner then
      -- Granted before. The asker counts the lease from when it asked last, so it must be as long.
      call('PEXPIRE', lock, math.max(tonumber(lease), call('PTTL', lock)))
      if terms ~= '' then call('ZREM', queue, owner .. '|' .. match(terms, '^%d+|%d+')) end
      return { next_token(), call('ZCARD', queue) }
    end
    if terms ~= '' then
      enter(queue, owner, terms)
      tell(holder, 'contended')
    end
  end
  return { terms == '' and -1 or 0, call('PTTL', lock) }
end

-- Calls verb(lock, queue, a) for each item, whose arguments are ARGV[a + 1] to ARGV[a + arity].
-- What one item fails with is its own result, {-2, message}: Redis takes nothing back, so the others
-- must be done and told.
local function each(arity, verb)
  local results = {}
  for item = 1, (#KEYS - 1) / 2 do
    local ok, result = pcall(verb, KEYS[item * 2], KEYS[item * 2 + 1], (item - 1) * arity)
    if not ok then
      local message = type(result) == 'table' and result.err or tostring(result)
      -- Nothing can have been written: as an error of the whole call, the client sees it too, and may
      -- know what to do about a primary that has been demoted.
      if string.find(message, '^READONLY') then return redis.error_reply(message) end
      result = { -2, message }
    end
    results[item] = result
  end
  if risen then redis.pcall('SET', KEYS[1], whole(highest), 'PX', FENCE_MS) end
  return results
end

