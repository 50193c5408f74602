-- Takes asks back: leaves the queue, and passes on what was granted meanwhile.
--
-- KEYS: fence; for each item: lock, queue
-- ARGV, for each item: owner, stay; its entry is '<owner>|<stay>'
-- Gives, for each item: 1 held, and passed on; 0 not held; {-2, message} failed
--
-- The lock goes first: whatever is wrong with the queue, nobody holds what nobody wants.

return each(2, function(lock, queue, a)
  local owner = ARGV[a + 1]
  local held = call('GET', lock) == owner
  if held then call('DEL', lock) end
  call('ZREM', queue, owner .. '|' .. ARGV[a + 2])
  if not held then return 0 end
  waiters().promote(lock, queue)
  return 1
end)
