-- Moves an event to the dead letters. ARGV goes on with the caller's token, the event's number, and the error. From then on
-- it is noted when its user has a later transition. Answers 0, and changes nothing, if the lease is another's.
if latest_holder ~= ARGV[3] then
  return {'ok', epoch, 0}
end

local number = ARGV[4] .. '-0'
local entry = redis.call('XRANGE', EVENTS, number, number)[1]
if entry then
  local event = fields_of(entry)
  local failures = (redis.call('HGET', FAILED, event.number) or '0'):match('^%d+')
  last = math.max(last + 1, wall)
  redis.call('HSET', META, 'last', last)
  redis.call('XADD', DEAD, string.format('%.0f-0', last), 'u', event.u, 'k', event.k, 'd', event.d, 'v', event.v,
    'f', failures, 'e', ARGV[5])
  redis.call('XDEL', EVENTS, number)
  redis.call('HDEL', FAILED, event.number)
  local newest = tonumber(redis.call('HGET', SUPERSEDED, event.u)) or 0
  redis.call('HSET', SUPERSEDED, event.u, math.max(newest, event.v))
end
return {'ok', epoch, 1}
