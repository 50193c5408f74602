-- Takes asks back: leaves the queue, and passes on what was granted meanwhile.
--
-- KEYS, for each item: lock, queue, fence
-- ARGV, for each item: owner, tail; the entry is owner .. tail
-- Gives, for each item: {1} held, and passed on; {0} not held; {-2, message} failed

return each(2, function(lock, queue, fence, owner, tail)
  redis.call('ZREM', queue, owner .. tail)
  if redis.call('GET', lock) ~= owner then return { 0 } end
  redis.call('DEL', lock)
  promote(lock, queue, fence)
  return { 1 }
end)
