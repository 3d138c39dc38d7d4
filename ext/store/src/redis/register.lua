-- Registers or deregisters a member, and removes members whose registration has expired.
--
-- KEYS: 1 the members of the namespace, a sorted set of "TOKEN NAME" by the time when the registration expires.
-- ARGV: 1 the member's token and name; 2 for how many milliseconds the registration holds, or 0 to deregister.
-- Returns how many members are registered.

-- Twice the longest lease, which is the longest time that a member asks for.
local MAX_MILLISECONDS = 120000
-- For how many seconds a key is kept that no member renews.
local KEEP = 30 * 86400
local server_time = redis.call('TIME')
local now = server_time[1] * 1000 + math.floor(server_time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
-- If the server's clock was set back, old registrations would hold for too long.
redis.call('ZREMRANGEBYSCORE', KEYS[1], now + MAX_MILLISECONDS, '+inf')
if tonumber(ARGV[2]) > 0 then
  redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
  redis.call('EXPIRE', KEYS[1], KEEP)
else
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return redis.call('ZCARD', KEYS[1])
