-- Asks for locks.
--
-- KEYS: fence; for each item: lock, queue
-- ARGV, for each item: owner, lease in ms, terms
-- Gives, for each item, what `ask` gives, or {-2, message} if it failed

return each(3, function(lock, queue, a)
  return ask(lock, queue, ARGV[a + 1], ARGV[a + 2], ARGV[a + 3])
end)
