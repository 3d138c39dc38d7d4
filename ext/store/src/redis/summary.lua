-- What a reader needs to know of the partition, without writing anything: its clock, how many events wait, how many dead
-- letters there are, and its meta hash.
local _, EVENTS, _, META, _, _, _, DEAD = unpack(KEYS)
local time = redis.call('TIME')
local known = redis.call('HMGET', META, 'shift', 'swept')
local now = math.max(time[1] * 1000000 + time[2] + (tonumber(known[1]) or 0), tonumber(known[2]) or 0)
return {now, redis.call('XLEN', EVENTS), redis.call('XLEN', DEAD), redis.call('HGETALL', META)}
