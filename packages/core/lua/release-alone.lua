-- Of locks that nobody waits for, here or elsewhere, those that are held are deleted at once, all by
-- one command. What this leaves over is for release.lua. As in acquire-alone.lua, no function is made.

local locks, queues = {}, {}
for item = 1, items do locks[item], queues[item] = KEYS[item * 2], KEYS[item * 2 + 1] end
if redis.pcall('EXISTS', unpack(queues)) == 0 then
  local holders, over, done = redis.pcall('MGET', unpack(locks)), {}, {}
  for item = 1, items do
    local a = item * 4
    if holders[item] == ARGV[a - 3] and ARGV[a - 1] == '' and ARGV[a] == '' then
      over[#over + 1], done[#done + 1] = locks[item], item
    end
  end
  if #over > 0 and redis.pcall('DEL', unpack(over)) == #over then
    for n = 1, #done do results[done[n]] = 1 end
  end
  if #over == items and results[items] then return items == 1 and 1 or results end
end

