-- Moves an event from the log to the dead letters. The latest version of its user is kept from then on, so that a later
-- transition supersedes the dead letter.
--
-- KEYS: see partition.lua.
-- ARGV: 3 the caller's token; 4 the event's number; 5 the last error.
-- Returns {'ok', epoch, 1}, or {'ok', epoch, 0} and changes nothing unless the caller acquired the lease last.
if last_holder ~= ARGV[3] then
  return {'ok', epoch, 0}
end

local number = ARGV[4] .. '-0'
local entry = redis.call('XRANGE', EVENTS, number, number)[1]
if entry then
  local event = fields_of(entry)
  local failures = (redis.call('HGET', FAILURES, event.number) or '0'):match('^%d+')
  last_number = math.max(last_number + 1, wall)
  redis.call('HSET', META, 'last', last_number)
  redis.call('XADD', DEAD_LETTERS, string.format('%.0f-0', last_number), 'u', event.u, 'k', event.k, 'd', event.d,
    'v', event.v, 'f', failures, 'e', ARGV[5])
  redis.call('XDEL', EVENTS, number)
  redis.call('HDEL', FAILURES, event.number)
  local latest = tonumber(redis.call('HGET', SUPERSEDED, event.u)) or 0
  redis.call('HSET', SUPERSEDED, event.u, math.max(latest, event.v))
end
return {'ok', epoch, 1}
