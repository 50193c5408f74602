-- Takes asks back: leaves the queue, and passes on what was granted meanwhile.
--
-- KEYS: fence; for each item: lock, queue
-- ARGV, for each item: owner, stay; its entry is '<owner>|<stay>'
-- Gives, for each item: 1 held, and passed on; 0 not held; {-2, message} failed

return each(2, function(lock, queue, a)
  local owner = ARGV[a + 1]
  local entry = owner .. '|' .. ARGV[a + 2]
  if call('GET', lock) ~= owner then
    call('ZREM', queue, entry)
    return 0
  end
  give_back(lock, queue, entry, '', '')
  return 1
end)
