-- Makes votes last, and reserves more tokens.
--
-- KEYS, for each item: lock, waiting, fence
-- ARGV, for each item: owner, ms the lease is to last from now, the last token used, how many tokens
--   to reserve after it
-- Gives, for each item:
--   {1, last token reserved, next ask}   as in quorum-acquire.lua
--   {0}             it is not ours any more
--   {-2, message}   failed
--
-- A lease is never shortened: of two renewals, the earlier may come last. A vote is never made: that
-- it is there shows that nobody else can have had it in the meantime.

return each(4, function(lock, waiting, fence, owner, ms, token, reach)
  if redis.call('GET', lock) ~= owner then return { 0 } end
  ms = math.max(tonumber(ms), redis.call('PTTL', lock))
  local last, base = read_fence(fence)
  last = math.max(last, token + reach)
  write_fence(fence, last, base, ms)
  redis.call('PEXPIRE', lock, ms)
  return { 1, whole(last), next_ask(waiting, owner) }
end)
