-- Acquires, renews or releases the lease of the partition, sets users offline whose deadline has passed, and reads the
-- log.
--
-- KEYS: see partition.lua.
-- ARGV: 3 the caller's token; 4 what it requests of the lease, "acquire", "renew", "release" or ""; 5 the length of the
-- lease in milliseconds; 6 how many users may be set offline, or -1 for no sweep; 7 where in the log to start, "-" for
-- the beginning, "(NUMBER-0" for behind an event, or "" for no events; 8 how many events to return.
-- Returns {'ok', epoch, the state of the lease (0 free, 1 held by another member, 2 the caller's as before, 3
-- acquired), how many users were set offline, how long ago the first of them was due, in how long the next user may be
-- due (-1 if nobody is online), the events}. Each event is {number, id, kind, lateness, version, failures}; the list is
-- empty unless the caller holds the lease. Durations are microseconds.
local TOKEN, REQUEST, DURATION, LIMIT, AFTER, COUNT =
  ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8])

-- Returns the state of the lease after the request. The last holder of an expired lease still counts as its holder: no
-- other member can have delivered anything meanwhile.
local function update_lease()
  local holder = redis.call('GET', LEASE)
  local is_held = holder == TOKEN or (not holder and last_holder == TOKEN)
  if REQUEST == 'release' and is_held then
    redis.call('DEL', LEASE)
    redis.call('HDEL', META, 'holder')
    return 0
  elseif (REQUEST == 'renew' and is_held) or (REQUEST == 'acquire' and not holder) then
    redis.call('SET', LEASE, TOKEN, 'PX', DURATION)
    if last_holder ~= TOKEN then
      redis.call('HSET', META, 'holder', TOKEN)
    end
    return is_held and 2 or 3
  end
  return is_held and 2 or holder and 1 or 0
end

-- Returns when the next user may be set offline, or nil if nobody is online.
local function first_deadline()
  local score = redis.call('ZRANGE', USERS, 0, 0, 'WITHSCORES')[2]
  return score and math.max(math.floor(score / CLASSES) * 1000, held_until)
end

-- Deletes tombstones that are older than two timeouts: no heartbeat can be that late. At most 256, so that no poll is
-- long.
local function forget_old_tombstones()
  local old = redis.call('ZRANGE', TOMBSTONES, '-inf', now - 2 * TIMEOUT, 'BYSCORE', 'LIMIT', 0, 256)
  if #old > 0 then
    redis.call('ZREM', TOMBSTONES, unpack(old))
  end
end

-- Sets users offline whose deadline has passed, the earliest first. Returns how many, and how long ago the first was
-- due.
local function expire()
  local max_score = string.format('(%.0f', (math.floor(now / 1000) + 1) * CLASSES)
  local found = redis.call('ZRANGE', USERS, '-inf', max_score, 'BYSCORE', 'LIMIT', 0, LIMIT, 'WITHSCORES')
  if #found == 0 then
    return 0, 0
  end
  local ids = {}
  for i = 1, #found, 2 do
    ids[#ids + 1] = found[i]
  end
  local times = redis.call('EXISTS', OVERFLOW) == 1 and redis.call('HMGET', OVERFLOW, unpack(ids)) or {}
  local tombstones, in_overflow = {}, {}
  for n, id in ipairs(ids) do
    local deadline = math.floor(found[2 * n] / CLASSES) * 1000
    local seen, left = deadline - timeout_of(found[2 * n] % CLASSES), 0
    if times[n] then
      seen, left = times[n]:match('^(%d+) (%d+)$')
      left = tonumber(left)
      in_overflow[#in_overflow + 1] = id
    end
    append(id, left > 0 and 'l' or 't', math.max(deadline, held_until))
    tombstones[#tombstones + 1] = left > 0 and left or seen
    tombstones[#tombstones + 1] = id
  end
  redis.call('ZREM', USERS, unpack(ids))
  redis.call('ZADD', TOMBSTONES, unpack(tombstones))
  if #in_overflow > 0 then
    redis.call('HDEL', OVERFLOW, unpack(in_overflow))
  end
  return #ids, now - math.max(math.floor(found[2] / CLASSES) * 1000, held_until)
end

-- Returns how many users were set offline, how long ago the first was due, and in how long the next may be due, or -1.
local function sweep()
  local first = first_deadline()
  -- After a gap in the sweeps, nobody is set offline for one timeout: perhaps no member could reach the store, and no
  -- heartbeat was written either.
  if swept_at and first and now - swept_at > TIMEOUT / 2 then
    held_until = now + TIMEOUT
    redis.call('HSET', META, 'hold', held_until)
    first = first_deadline()
  end
  local is_due = first and first <= now
  local expired, lag = 0, 0
  -- A mark each eighth of the timeout is enough, since only half a timeout without one counts as a gap.
  if is_due or not swept_at or now - swept_at >= TIMEOUT / 8 then
    redis.call('HSET', META, 'swept', now)
    forget_old_tombstones()
  end
  if is_due and LIMIT > 0 then
    expired, lag = expire()
    first = first_deadline()
  end
  return expired, lag, first and math.max(first - now, 0) or -1
end

-- Returns events of the log.
local function read_events()
  local found = redis.call('XRANGE', EVENTS, AFTER, '+', 'COUNT', COUNT)
  local numbers, list = {}, {}
  for n, entry in ipairs(found) do
    local event = fields_of(entry)
    numbers[n] = event.number
    list[n] = {event.number, event.u, event.k, math.max(now - event.d, 0), event.v}
  end
  local failures = #found > 0 and redis.call('EXISTS', FAILURES) == 1 and redis.call('HMGET', FAILURES, unpack(numbers)) or {}
  for n, event in ipairs(list) do
    event[6] = failures[n] and tonumber(failures[n]:match('^%d+')) or 0
  end
  return list
end

local lease_state = update_lease()
local expired, lag, next_due = 0, 0, -1
if LIMIT >= 0 then
  expired, lag, next_due = sweep()
end
local reads_events = AFTER ~= '' and COUNT > 0 and lease_state >= 2
return {'ok', epoch, lease_state, expired, lag, next_due, reads_events and read_events() or {}}
