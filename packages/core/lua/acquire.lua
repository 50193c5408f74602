-- Asks for locks.
--
-- KEYS, for each item: lock, queue, fence
-- ARGV, for each item: owner, tail, waited, lease, keep, wait (see `ask`)
-- Gives, for each item:
--   {1, first token, last token, others waiting}   granted, for the whole lease
--   {0, ms}         queued; the holder has ms left (-1: for ever)
--   {-1, ms}        a try, refused; the same
--   {-2, message}   failed

return each(6, ask)
