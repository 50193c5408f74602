-- Of locks that nobody waits for, those that are free are taken at once. What this leaves over is for
-- acquire.lua. Most calls leave nothing, so this comes before all functions: making them takes Redis
-- longer than what is done here.

local queues = {}
for item = 1, items do queues[item] = KEYS[item * 2 + 1] end
if redis.pcall('EXISTS', unpack(queues)) == 0 then
  local taken = {}
  for item = 1, items do
    local a = item * 3
    local set = redis.pcall('SET', KEYS[item * 2], ARGV[a - 2], 'NX', 'PX', ARGV[a - 1])
    if set and set.ok then taken[#taken + 1] = item end
  end
  if #taken > 0 then
    -- Tokens as in shared.lua. Hardly ever is the fence higher: one command writes it, and tells what
    -- it was; or fails, as it will again for acquire.lua.
    local clock = redis.call('TIME')
    local below = clock[1] * 1000000 + clock[2] - 1
    local fence = tonumber(redis.pcall('SET', KEYS[1], below + #taken, 'PX', FENCE_MS, 'GET') or 0)
    if fence then
      if fence > below then
        below = fence
        redis.call('SET', KEYS[1], below + #taken, 'PX', FENCE_MS)
      end
      for n = 1, #taken do results[taken[n]] = below + n end
      if #taken == items then return items == 1 and results[1] or results end
    end
  end
end

