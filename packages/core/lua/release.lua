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

return each(4, function(lock, queue, a)
  local owner, token, heir = ARGV[a + 1], ARGV[a + 3], ARGV[a + 4]
  local entry, holder = owner .. '|' .. ARGV[a + 2], call('GET', lock)
  local kept, asked = 0, nil
  if holder == owner then
    kept, asked = 1, give_back(lock, queue, entry, token, heir)
  elseif not holder then
    asked = give_back(lock, queue, entry, '', heir)
  else
    call('ZREM', queue, entry)
    if heir ~= '' then asked = ask(lock, queue, parts(heir)) end
  end
  if heir == '' then return kept end
  return { kept, asked }
end)
