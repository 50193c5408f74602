-- Makes leases last.
--
-- KEYS: fence; for each item: lock, queue
-- ARGV, for each item: owner, ms the lease is to last from now, the last token that was used ('' if
--   that is the one it was granted with)
-- Gives, for each item:
--   0               it is not ours any more
--   1, 2            it is; nobody else waits, or others do
--   {-2, message}   failed
--
-- A lease is never shortened: of two renewals, the earlier may come last. A lock is never made.

return each(3, function(lock, queue, a)
  if call('GET', lock) ~= ARGV[a + 1] then return 0 end
  call('PEXPIRE', lock, math.max(tonumber(ARGV[a + 2]), call('PTTL', lock)))
  if ARGV[a + 3] ~= '' then raise(tonumber(ARGV[a + 3])) end
  return 1 + call('EXISTS', queue)
end)
