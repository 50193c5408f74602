-- What items need that have no result by then.

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

-- Calls verb(lock, queue, a) for each item that has no result yet; its arguments are ARGV[a + 1] to
-- ARGV[a + arity]. What one item fails with is its own result, {-2, message}: Redis takes nothing back,
-- so the others must be done and told. Gives what the script gives.
local function each(arity, verb)
  for item = 1, items do
    if not results[item] then
      local ok, result = pcall(verb, KEYS[item * 2], KEYS[item * 2 + 1], (item - 1) * arity)
      if not ok then
        local message = type(result) == 'table' and result.err or tostring(result)
        -- Nothing can have been written: as an error of the whole call, the client sees it too, and
        -- may know what to do about a primary that has been demoted.
        if string.find(message, '^READONLY') then return redis.error_reply(message) end
        result = { -2, message }
      end
      results[item] = result
    end
  end
  if risen then redis.pcall('SET', KEYS[1], highest, 'PX', FENCE_MS) end
  return items == 1 and results[1] or results
end

