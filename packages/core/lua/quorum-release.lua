-- Takes votes back.
--
-- KEYS, for each item: lock, waiting, fence
-- ARGV, for each item: owner, the last token used (0: none), pause; the owner's process asks again
--   within `pause` ms (0: it does not)
-- Gives, for each item:
--   {1, next ask}   it was ours; as in quorum-acquire.lua
--   {0}             it was not
--   {-2, message}   failed
--
-- The first write frees memory, so that a server which is out of it lets the others through. The
-- fence is lowered to what was used, so that it does not outrun the clock; but not below what others
-- may have used before this owner came.

return each(3, function(lock, waiting, fence, owner, token, pause)
  token, pause = tonumber(token), tonumber(pause)
  if redis.call('GET', lock) ~= owner then return { 0 } end
  redis.call('DEL', lock)
  local _, base = read_fence(fence)
  local last = math.max(token, base)
  if last > 0 then
    write_fence(fence, last, last, 0)
  else
    redis.call('DEL', fence)
  end
  local asks = next_ask(waiting, owner)
  if pause > 0 then note_waiting(waiting, owner, pause) end
  return { 1, asks }
end)
