-- The asker holds the lock for the moment, and keeps it if nobody waits who comes first. `left` are in
-- the queue. Gives what `ask` gives.
local function keep(lock, queue, left, owner, terms)
  if left > 0 then return waiters().settle(lock, queue, left, owner, terms) end
  return next_token()
end

-- One ask for a lock, by an owner that may have asked before. Gives
--   token             granted for the whole lease; nobody else waits
--   {token, others}   granted; the first of the others has waited for so long, in microseconds (at
--                     least 1); 0 if nobody else waits
--   {0, ms}           queued; the holder has ms left (-1: for ever)
--   {-1, ms}          a try, refused; the same
local function ask(lock, queue, owner, lease, terms)
  if not call('SET', lock, owner, 'NX', 'PX', lease) then
    return waiters().wait(lock, queue, owner, lease, terms)
  end
  return keep(lock, queue, call('ZCARD', queue), owner, terms)
end

