-- One look at the partition: at its lease, at who is due, and at its log. ARGV goes on with
--
--   the caller's token, what it wants of the lease ("keep", "take", "give back" or "") and for how many milliseconds;
--   how many users may be set offline, or -1 if none is to be looked at;
--   behind which entry of the log events are wanted ("-" for all, "" for none), and how many.
--
-- Answers 'ok', the epoch, whose the lease is (0 nobody's, 1 another's, 2 the caller's as before, 3 the caller's anew), how
-- many were set offline, how late the first of them was, in how long somebody may be due (-1 if nobody is online), and the
-- events, each with its number, id, kind, lateness, version and failures.
local TOKEN, REQUEST, DURATION, LIMIT, AFTER, COUNT =
  ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8])

-- Who had the lease last may go on when it has only run out: nobody else has delivered anything meanwhile.
local function lease()
  local holder = redis.call('GET', LEASE)
  local is_mine = holder == TOKEN or (not holder and latest_holder == TOKEN)
  if REQUEST == 'release' and is_mine then
    redis.call('DEL', LEASE)
    redis.call('HDEL', META, 'holder')
    return 0
  elseif (REQUEST == 'renew' and is_mine) or (REQUEST == 'acquire' and not holder) then
    redis.call('SET', LEASE, TOKEN, 'PX', DURATION)
    if latest_holder ~= TOKEN then
      redis.call('HSET', META, 'holder', TOKEN)
    end
    return is_mine and 2 or 3
  end
  return is_mine and 2 or holder and 1 or 0
end

local function first_deadline()
  local score = redis.call('ZRANGE', USERS, 0, 0, 'WITHSCORES')[2]
  return score and math.max(math.floor(score / CLASSES) * 1000, hold)
end

-- Forgets who went offline so long ago that no late beat can come any more.
local function forget_old_tombstones()
  local old = redis.call('ZRANGE', TOMBSTONES, '-inf', now - 2 * TIMEOUT, 'BYSCORE', 'LIMIT', 0, 256)
  if #old > 0 then
    redis.call('ZREM', TOMBSTONES, unpack(old))
  end
end

local function expire()
  local until_now = string.format('(%.0f', (math.floor(now / 1000) + 1) * CLASSES)
  local found = redis.call('ZRANGE', USERS, '-inf', until_now, 'BYSCORE', 'LIMIT', 0, LIMIT, 'WITHSCORES')
  if #found == 0 then
    return 0, 0
  end
  local ids = {}
  for i = 1, #found, 2 do
    ids[#ids + 1] = found[i]
  end
  local overflows = redis.call('EXISTS', OVERFLOW) == 1 and redis.call('HMGET', OVERFLOW, unpack(ids)) or {}
  local tombstones, overflow = {}, {}
  for n, id in ipairs(ids) do
    local deadline = math.floor(found[2 * n] / CLASSES) * 1000
    local seen, left = deadline - timeout_of(found[2 * n] % CLASSES), 0
    if overflows[n] then
      seen, left = overflows[n]:match('^(%d+) (%d+)$')
      left = tonumber(left)
      overflow[#overflow + 1] = id
    end
    append(id, left > 0 and 'l' or 't', math.max(deadline, hold))
    tombstones[#tombstones + 1] = left > 0 and left or seen
    tombstones[#tombstones + 1] = id
  end
  redis.call('ZREM', USERS, unpack(ids))
  redis.call('ZADD', TOMBSTONES, unpack(tombstones))
  if #overflow > 0 then
    redis.call('HDEL', OVERFLOW, unpack(overflow))
  end
  return #ids, now - math.max(math.floor(found[2] / CLASSES) * 1000, hold)
end

local function sweep()
  local first = first_deadline()
  -- Nobody has swept for too long: perhaps the beats had nowhere to go.
  if swept and first and now - swept > TIMEOUT / 2 then
    hold = now + TIMEOUT
    redis.call('HSET', META, 'hold', hold)
    first = first_deadline()
  end
  local is_due = first and first <= now
  local expired, lag = 0, 0
  if is_due or not swept or now - swept >= TIMEOUT / 8 then
    redis.call('HSET', META, 'swept', now)
    forget_old_tombstones()
  end
  if is_due and LIMIT > 0 then
    expired, lag = expire()
    first = first_deadline()
  end
  return expired, lag, first and math.max(first - now, 0) or -1
end

local function events()
  local found = redis.call('XRANGE', EVENTS, AFTER, '+', 'COUNT', COUNT)
  local numbers, list = {}, {}
  for n, entry in ipairs(found) do
    local event = fields_of(entry)
    numbers[n] = event.number
    list[n] = {event.number, event.u, event.k, math.max(now - event.d, 0), event.v}
  end
  local failed = #found > 0 and redis.call('EXISTS', FAILED) == 1 and redis.call('HMGET', FAILED, unpack(numbers)) or {}
  for n, event in ipairs(list) do
    event[6] = failed[n] and tonumber(failed[n]:match('^%d+')) or 0
  end
  return list
end

local whose = lease()
local expired, lag, next_due = 0, 0, -1
if LIMIT >= 0 then
  expired, lag, next_due = sweep()
end
local wanted = AFTER ~= '' and COUNT > 0 and whose >= 2
return {'ok', epoch, whose, expired, lag, next_due, wanted and events() or {}}
