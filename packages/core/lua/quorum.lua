-- What the three scripts of a quorum share; each of them is loaded with this in front. They run on
-- one of several independent masters, whose answers are counted by who asks.
--
-- Of each mutex there are on every master, in one Cluster slot:
--   lock     string      the owner, expiring with its lease: this master's vote
--   waiting  sorted set  the processes that were refused; score: by when each of them is going to ask
--                        again, in microseconds on this server's clock
--   fence    string      '<last token reserved>|<base>', short-lived; base: what was reserved before
--                        the present owner came
--
-- An owner is '<instance>|<n>.<try>'.

local FENCE_MS = 60000      -- how long a fence outlives its lock
local GRACE_MS = 100        -- how late those who wait may ask again before they are taken for gone

-- Read once: all items of a call happen at the same time.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function whole(number)
  return string.format('%.0f', number)
end

local function instance_of(owner)
  return string.match(owner, '^(.*)|') or owner
end

-- Is it of an earlier try for the same? That one is over, and what takes its vote back on its way.
local function is_earlier(holder, owner)
  local of, try = string.match(owner, '^(.*)%.(%d+)$')
  local holder_of, holder_try = string.match(holder, '^(.*)%.(%d+)$')
  return of and of == holder_of and tonumber(holder_try) < tonumber(try)
end

local function read_fence(fence)
  local last, base = string.match(redis.call('GET', fence) or '', '^(%d+)|(%d+)$')
  return tonumber(last or 0), tonumber(base or 0)
end

local function write_fence(fence, last, base, ms)
  redis.call('SET', fence, whole(last) .. '|' .. whole(base), 'PX', ms + FENCE_MS)
end

-- The owner's process is going to ask (again) within `pause` ms. A server that is out of memory need
-- not know.
local function note_waiting(waiting, owner, pause)
  local keep = pause + GRACE_MS
  redis.pcall('ZADD', waiting, whole(now + pause * 1000), instance_of(owner))
  if redis.call('PTTL', waiting) < keep then redis.pcall('PEXPIRE', waiting, keep) end
end

-- In how many ms the first of the other processes is going to ask again; -1 if none waits.
local function next_ask(waiting, owner)
  if redis.call('EXISTS', waiting) == 0 then return -1 end
  redis.call('ZREM', waiting, instance_of(owner))
  redis.call('ZREMRANGEBYSCORE', waiting, '-inf', whole(now - GRACE_MS * 1000))
  local first = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')
  if not first[2] then return -1 end
  return math.max(0, math.ceil((first[2] - now) / 1000))
end

-- Calls verb(lock, waiting, fence, arguments…) for each item: three keys and `arity` arguments each.
-- What one item fails with is its own result, {-2, message}: Redis takes nothing back, so the others
-- must be done and told. Gives a list of the results, or of one item its result alone.
local function each(arity, verb)
  local results, last = {}, #KEYS / 3
  for item = 1, last do
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
  return last == 1 and results[1] or results
end

