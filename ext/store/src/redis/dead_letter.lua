-- Moves events from the log to the dead letters. The latest version of their users is kept from then on, so that a
-- later transition supersedes the dead letter: one in the log already, or one that comes.
--
-- KEYS: see partition.lua.
-- ARGV: 6 the caller's token; 7 the number of the event behind which to look for later transitions, or "" for the first
-- event that is moved; then three arguments for each event to move: its number, how often it has failed, and the last
-- error.
-- Returns {'ok', epoch, generation, last number, 1, the number of the event behind which to call the script again, with
-- no events, or 0}; or 0 and 0, and changes nothing, unless the caller acquired the lease last.
if last_holder ~= ARGV[6] then
  return {'ok', epoch, generation, last_number, 0, 0}
end

-- How many events are searched for later transitions in one call of the script.
local MAX_SEARCHED, PAGE = 5120, 256

local after = tonumber(ARGV[7])
for i = 8, #ARGV, 3 do
  local number = ARGV[i] .. '-0'
  local entry = redis.call('XRANGE', EVENTS, number, number)[1]
  if entry then
    local event = fields_of(entry)
    redis.call('XADD', DEAD_LETTERS, entry_id(next_number()), 'u', event.u, 'k', event.k, 'd', event.d, 's', event.s,
      'v', event.v, 'f', ARGV[i + 1], 'e', ARGV[i + 2])
    redis.call('XDEL', EVENTS, number)
    redis.call('HDEL', FAILURES, event.number)
    local latest = tonumber(redis.call('HGET', SUPERSEDED, event.u)) or 0
    redis.call('HSET', SUPERSEDED, event.u, math.max(latest, event.v))
    after = math.min(after or event.number, event.number)
  end
end
if not after then
  return {'ok', epoch, generation, last_number, 1, 0}
end

for _ = 1, MAX_SEARCHED / PAGE do
  local entries = redis.call('XRANGE', EVENTS, '(' .. entry_id(after), '+', 'COUNT', PAGE)
  if #entries == 0 then
    return {'ok', epoch, generation, last_number, 1, 0}
  end
  local events, ids = {}, {}
  for n, entry in ipairs(entries) do
    events[n] = fields_of(entry)
    ids[n] = events[n].u
  end
  local latest = redis.call('HMGET', SUPERSEDED, unpack(ids))
  for n, event in ipairs(events) do
    if latest[n] and tonumber(event.v) > (tonumber(redis.call('HGET', SUPERSEDED, event.u)) or 0) then
      redis.call('HSET', SUPERSEDED, event.u, event.v)
    end
  end
  after = tonumber(events[#events].number)
end
return {'ok', epoch, generation, last_number, 1, after}
