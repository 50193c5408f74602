-- Gives locks back, to the first in the queue, and asks again for whoever is next in this process.
--
-- KEYS, for each item: lock, queue, fence
-- ARGV, for each item:
--   owner, tail   whose it is; the entry it had in the queue is owner .. tail
--   token         the last one used of those reserved
--   heir, tail, waited, lease, keep   an ask that waits (see `ask`); '' five times if nobody is next
-- Gives, for each item:
--   {kept}              1: it was held to the end; 0: it was not ours any more
--   {kept, …}           followed by what the heir is given, as in acquire.lua
--   {-2, message}       failed
--
-- The first write frees memory, so that a server which is out of it lets the others through.

return each(8, function(lock, queue, fence, owner, tail, token, heir, heir_tail, waited, lease, keep)
  local kept = 0
  local holder = redis.call('GET', lock)
  if holder == owner then
    redis.call('DEL', lock)
    redis.call('SET', fence, token .. '|' .. owner, 'PX', FENCE_MS)
    kept, holder = 1, false
  else
    -- The same command again, after its reply was lost, must answer as it did.
    local _, releaser = last_of(fence)
    if releaser == owner then kept = 1 end
  end
  if redis.call('EXISTS', queue) == 1 then
    redis.call('ZREM', queue, owner .. tail)
    if heir == '' and not holder then promote(lock, queue, fence) end
  end
  if heir == '' then return { kept } end
  return { kept, unpack(ask(lock, queue, fence, heir, heir_tail, waited, lease, keep, '1')) }
end)
