-- What is done where somebody waits. Most calls meet nobody, so this is the body of a function,
-- `waiters()`, which makes the functions that its last line names when they are needed first.

local function whole(number)
  return string.format('%.0f', number)
end

-- Tells a process something, if the owner is of this library's making. A server that refuses
-- PUBLISH only makes everybody poll.
local function tell(owner, message)
  local instance, n = match(owner, '^([%w_-]+)|(%d+)$')
  if instance and #instance == 22 then
    redis.pcall('PUBLISH', 'redismutex:inbox:' .. instance, message .. '|' .. n)
  end
end

-- A waiter began to wait once. Whatever time an ask spends on its way makes that look later than it
-- was, so that of several asks the earliest is right; those that are late must not cost a place.
local function enter(queue, owner, terms)
  local stay, waited, keep = match(terms, '^(%d+|%d+)|(%d+)|(%d+)$')
  local entry, since = owner .. '|' .. stay, now() - waited
  local known = tonumber(call('ZSCORE', queue, entry))
  if not known or since < known then call('ZADD', queue, since, entry) end
  if call('PTTL', queue) < tonumber(keep) then call('PEXPIRE', queue, keep) end
  return known and 0 or 1
end

local function age(since)
  return math.max(1, now() - since)
end

-- The first of the `left` in the queue who is still waiting, with `others`: for how long the next one
-- has waited, 0 if there is none; or nothing. Those before are removed.
local function head(queue, left)
  for _ = 1, left do
    local first = call('ZRANGE', queue, 0, 1, 'WITHSCORES')
    local entry, since, others = first[1], tonumber(first[2]), first[4] and age(first[4]) or 0
    local owner, claim, patience = match(entry, '^(.+)|(%d+)|(%d+)$')
    if owner and (patience == '0' or since + patience * 1000 > now()) then
      return { entry = entry, owner = owner, claim = tonumber(claim), since = since, others = others }
    end
    call('ZREM', queue, entry)
  end
end

-- Gives a lock to the head of its queue, who hears of it by a push:
-- 'grant|<token>|<others>|<age of the head in microseconds>|<n>'.
local function give(lock, queue, waiter)
  local token = next_token()
  call('SET', lock, waiter.owner, 'PX', waiter.claim)
  call('ZREM', queue, waiter.entry)
  local others, waited = whole(waiter.others), whole(now() - waiter.since)
  tell(waiter.owner, table.concat({ 'grant', whole(token), others, waited }, '|'))
end

-- Gives a lock that is free, or about to be, to whoever of the `left` in the queue has waited longest,
-- if they still do. Gives whether it did.
local function promote(lock, queue, left)
  local waiter = head(queue, left)
  if waiter then give(lock, queue, waiter) end
  return waiter ~= nil
end

-- The asker holds the lock for the moment, but `left` are in the queue: whoever has waited longest is
-- next. Gives what `ask` gives.
local function settle(lock, queue, left, owner, terms)
  if terms ~= '' then left = left + enter(queue, owner, terms) end
  local first = head(queue, left)
  if not first then return { next_token(), 0 } end
  if first.owner ~= owner then
    give(lock, queue, first)
    return { terms == '' and -1 or 0, call('PTTL', lock) }
  end
  call('ZREM', queue, first.entry)
  return { next_token(), first.others }
end

-- Somebody holds the lock, perhaps the asker: a command may come twice. Gives what `ask` gives.
local function wait(lock, queue, owner, lease, terms)
  local holder = call('GET', lock)
  if holder == owner then
    -- Granted before. The asker counts the lease from when it asked last, so it must be as long.
    call('PEXPIRE', lock, math.max(tonumber(lease), call('PTTL', lock)))
    local others = call('ZCARD', queue)
    if terms ~= '' then
      others = others - call('ZREM', queue, owner .. '|' .. match(terms, '^%d+|%d+'))
    end
    -- They may have waited for however long.
    return { next_token(), others > 0 and now() or 0 }
  end
  if terms ~= '' then
    enter(queue, owner, terms)
    tell(holder, 'contended')
  end
  return { terms == '' and -1 or 0, call('PTTL', lock) }
end

return { promote = promote, settle = settle, wait = wait }
