-- What the four scripts share; each of them is loaded with this in front.
--
-- KEYS[1] is the fence; then come, for each item, a lock and its queue.
--   lock   string      the owner, expiring with its lease
--   queue  sorted set  an entry for each process that waits; score: when its oldest waiter began to
--                      wait, in microseconds on this server's clock
--   fence  string      the highest fencing token so far: of all locks on a server, or on a Cluster of
--                      this one; short-lived
--
-- An owner is '<instance>|<n>', an entry '<owner>|<stay>', a stay '<claim>|<patience>': for how long
-- (ms) a grant holds until its owner has confirmed it by a renewal, and for how long (ms) the waiter
-- waits in all (0: for ever). Terms are '<stay>|<waited>|<keep>': for how long the waiter has waited
-- already, in microseconds, and how long the queue must be kept for it, in ms; or '' for a try.
-- Each process listens on one channel, 'redismutex:inbox:<instance>'.

local FENCE_MS = 10000      -- how long the fence outlives the last token

-- What each item gives, as soon as that is known. Of one item it is given alone, which clients read
-- faster.
local items, results = (#KEYS - 1) / 2, {}

