-- One ask for a lock, by an owner that may have asked before. Gives
--   token             granted for the whole lease; nobody else waits
--   {token, others}   granted; so many others wait
--   {0, ms}           queued; the holder has ms left (-1: for ever)
--   {-1, ms}          a try, refused; the same
local function ask(lock, queue, owner, lease, terms)
  if not call('SET', lock, owner, 'NX', 'PX', lease) then
    return waiters().wait(lock, queue, owner, lease, terms)
  end
  if call('EXISTS', queue) == 1 then return waiters().settle(lock, queue, owner, terms) end
  return next_token()
end

