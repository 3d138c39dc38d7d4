-- Says that a process takes part, and forgets those that have not said so for too long. KEYS is the namespace's processes,
-- ARGV the process' token, and for how many milliseconds that is true (0: not any longer). Answers how many there are.
local MAX_MICROS = 120000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
-- Should the clock have been set back.
redis.call('ZREMRANGEBYSCORE', KEYS[1], now + MAX_MICROS, '+inf')
if tonumber(ARGV[2]) > 0 then
  redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
  redis.call('PEXPIRE', KEYS[1], MAX_MICROS)
else
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return redis.call('ZCARD', KEYS[1])
