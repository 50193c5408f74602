-- Makes leases last, and reserves more tokens.
--
-- KEYS, for each item: lock, queue, fence
-- ARGV, for each item: owner, ms the lease is to last from now, the last token used (0: none yet)
-- Gives, for each item:
--   {1, last token reserved, others waiting}
--   {0}             it is not ours any more
--   {-2, message}   failed
--
-- A lease is never shortened: of two renewals, the earlier may come last. A lock is never made.

return each(3, function(lock, queue, fence, owner, ms, token)
  if redis.call('GET', lock) ~= owner then return { 0 } end
  ms = math.max(tonumber(ms), redis.call('PTTL', lock))
  redis.call('PEXPIRE', lock, ms)
  local last, releaser = last_of(fence)
  last = math.max(last, tonumber(token) + BLOCK)
  redis.call('SET', fence, whole(last) .. '|' .. releaser, 'PX', ms + FENCE_MS)
  return { 1, whole(last), redis.call('ZCARD', queue) }
end)
