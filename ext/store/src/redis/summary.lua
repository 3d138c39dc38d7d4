-- Reads what a reader needs to know of a partition before it reads the users. Writes nothing, and knows no epoch.
--
-- KEYS: see partition.lua.
-- Returns {the partition's clock in microseconds, how many events are in the log, how many dead letters there are,
-- META}.
local _, EVENTS, _, META, _, _, _, DEAD_LETTERS = unpack(KEYS)
local server_time = redis.call('TIME')
local meta = redis.call('HMGET', META, 'shift', 'swept')
local now = math.max(server_time[1] * 1000000 + server_time[2] + (tonumber(meta[1]) or 0), tonumber(meta[2]) or 0)
return {now, redis.call('XLEN', EVENTS), redis.call('XLEN', DEAD_LETTERS), redis.call('HGETALL', META)}
