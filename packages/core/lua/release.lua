-- Gives locks back, to the first in the queue, and asks again for whoever is next in this process.
--
-- KEYS: fence; for each item: lock, queue
-- ARGV, for each item:
--   owner, stay   whose it is; the entry it had in the queue is '<owner>|<stay>'
--   token         the last one that was used; '' if that is the one it was granted with
--   heir          '<owner>|<lease>|<terms>' of an ask that waits (see `ask`); '' if nobody is next
-- Gives, for each item:
--   kept            1: it was held to the end; 0: it was not ours any more
--   {kept, asked}   followed by what the heir's ask gives
--   {-2, message}   failed
--
-- The first write frees memory, so that a server which is out of it lets the others through.

return each(4, function(lock, queue, a)
  local owner, token, heir = ARGV[a + 1], ARGV[a + 3], ARGV[a + 4]
  local kept = 0
  local holder = call('GET', lock)
  if holder == owner then
    call('DEL', lock)
    if token ~= '' then raise(tonumber(token)) end
    kept, holder = 1, false
  end
  if call('EXISTS', queue) == 1 then
    call('ZREM', queue, owner .. '|' .. ARGV[a + 2])
    if heir == '' and not holder then waiters().promote(lock, queue) end
  end
  if heir == '' then return kept end
  return { kept, ask(lock, queue, match(heir, '^(.-|%d+)|(%d+)|(.*)$')) }
end)
