-- Makes leases last.
--
-- KEYS: fence; for each item: lock, queue
-- ARGV, for each item: owner, ms the lease is to last from now, the last token that was used ('' if
--   that is the one it was granted with)
-- Gives, for each item:
--   0               it is not ours any more
--   1 + others      it is; the first of the others has waited for so long, in microseconds (at least 1);
--                   0 if nobody else waits
--   {-2, message}   failed
--
-- A lease is never shortened: of two renewals, the earlier may come last. A lock is never made.

return each(3, function(lock, queue, a)
  if call('GET', lock) ~= ARGV[a + 1] then return 0 end
  call('PEXPIRE', lock, math.max(tonumber(ARGV[a + 2]), call('PTTL', lock)))
  if ARGV[a + 3] ~= '' then raise(tonumber(ARGV[a + 3])) end
  if call('EXISTS', queue) == 0 then return 1 end
  local first = call('ZRANGE', queue, 0, 0, 'WITHSCORES')
  return 1 + math.max(1, now() - first[2])
end)
