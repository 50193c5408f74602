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

-- Fencing tokens are the time in microseconds, or more where that would not rise: in one call, or
-- when the clock has been put back. The fence is read once a call, and written where it has risen.
local highest, risen
local function write_fence(token, ...)
  return call('SET', KEYS[1], token, 'PX', FENCE_MS, ...)
end

local function raise(token)
  highest = highest or tonumber(call('GET', KEYS[1])) or 0
  if token <= highest then return false end
  highest, risen = token, true
  return true
end

local function next_token()
  local token = now()
  if highest then
    if not raise(token) then raise(highest + 1) end
    return highest
  end
  -- Hardly ever is the fence higher: one command writes it, and tells what it was.
  local before = tonumber(write_fence(token, 'GET')) or 0
  if token <= before then
    token = before + 1
    write_fence(token)
  end
  highest = token
  return highest
end

-- Calls verb(lock, queue, a) for each item, whose arguments are ARGV[a + 1] to ARGV[a + arity].
-- What one item fails with is its own result, {-2, message}: Redis takes nothing back, so the others
-- must be done and told. Gives a list of the results, or of one item its result alone, which clients
-- read faster.
local function each(arity, verb)
  local results, last = {}, (#KEYS - 1) / 2
  for item = 1, last do
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
  if risen then pcall(write_fence, highest) end
  return last == 1 and results[1] or results
end
