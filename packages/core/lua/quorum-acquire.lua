-- Asks a master for its vote.
--
-- KEYS, for each item: lock, waiting, fence
-- ARGV, for each item: owner, lease in ms, how many tokens to reserve, pause; the asker's process asks
--   again within `pause` ms if it is refused (0: it does not)
-- Gives, for each item:
--   {1, first token, last token, next ask}   given, for the whole lease; in how many ms the first of
--                     those who wait is going to ask again (-1: nobody waits)
--   {0, ms, holder}   somebody else has it, for ms more (-1: for ever)
--   {-2, message}     failed
--
-- The same command may come twice, and finds that it has the vote. A vote for an earlier try becomes
-- one for this. Tokens are higher than any that this master has reserved for others, and made from its
-- clock, so that they rise when the fence is gone.

return each(4, function(lock, waiting, fence, owner, lease, reach, pause)
  lease, pause = tonumber(lease), tonumber(pause)
  local holder = redis.call('GET', lock)
  if holder and holder ~= owner and not is_earlier(holder, owner) then
    if pause > 0 then note_waiting(waiting, owner, pause) end
    return { 0, redis.call('PTTL', lock), holder }
  end
  local last, base = read_fence(fence)
  if holder then
    lease = math.max(lease, redis.call('PTTL', lock))
  else
    base = last
  end
  local first = math.max(base + 1, now)
  last = math.max(last, first + reach - 1)
  -- First, so that no vote is given whose tokens nobody has noted.
  write_fence(fence, last, base, lease)
  redis.call('SET', lock, owner, 'PX', lease)
  return { 1, whole(first), whole(last), next_ask(waiting, owner) }
end)
