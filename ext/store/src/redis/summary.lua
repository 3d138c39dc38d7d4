-- Reads the figures of a partition. Writes nothing, and compares no data with what the caller knows.
--
-- KEYS: see partition.lua.
-- Returns {the partition's clock in microseconds, how many users are online, how many events are in the log, how long
-- ago the oldest of them became due in microseconds or -1, how many dead letters there are, META}.
local USERS, EVENTS, META, _, _, _, DEAD_LETTERS = unpack(KEYS)
local server_time = redis.call('TIME')
local meta = redis.call('HMGET', META, 'shift', 'swept')
local now = math.max(server_time[1] * 1000000 + server_time[2] + (tonumber(meta[1]) or 0), tonumber(meta[2]) or 0)
local oldest = -1
local first = redis.call('XRANGE', EVENTS, '-', '+', 'COUNT', 1)[1]
if first then
  for i = 1, #first[2], 2 do
    if first[2][i] == 'd' then
      oldest = math.max(now - first[2][i + 1], 0)
    end
  end
end
return {now, redis.call('ZCARD', USERS), redis.call('XLEN', EVENTS), oldest, redis.call('XLEN', DEAD_LETTERS),
  redis.call('HGETALL', META)}
