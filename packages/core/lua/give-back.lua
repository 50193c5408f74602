-- What `release` is told of the next in its process: owner, lease, terms.
local function parts(heir)
  return match(heir, '^(.-|%d+)|(%d+)|(.*)$')
end

-- What a hold leaves behind goes to whoever is next. Gives whether anybody is, and what the heir's ask
-- gives.
--
-- While a Cluster moves a slot, a key that is missing may be on the other node already: a script may
-- touch only those that it has found. So a lock is overwritten and not deleted first, and nothing is
-- asked of a queue that may be empty by then. The first write takes no memory, so that a server which
-- is out of it lets the others through.
local function pass_on(lock, queue, entry, token, heir)
  if token ~= '' then raise(tonumber(token)) end
  local left = call('ZCARD', queue)
  if left > 0 or heir ~= '' then left = left - call('ZREM', queue, entry) end
  if heir == '' then return left > 0 and waiters().promote(lock, queue, left) end
  local owner, lease, terms = parts(heir)
  call('SET', lock, owner, 'PX', lease)
  return true, keep(lock, queue, left, owner, terms)
end

-- Ends a hold. Whatever is wrong with the queue, nobody holds what nobody wants.
local function give_back(lock, queue, entry, token, heir)
  local ok, taken, asked = pcall(pass_on, lock, queue, entry, token, heir)
  if not ok or not taken then call('DEL', lock) end
  if not ok then error(taken, 0) end
  return asked
end

