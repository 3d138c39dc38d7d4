-- Acquires, renews or releases the lease of the partition, sets users offline whose deadline has passed, and reads the
-- log and the leaves.
--
-- KEYS: see partition.lua.
-- ARGV: 6 the caller's token; 7 what it requests of the lease, "acquire", "renew", "release" or ""; 8 how many users may be set offline, or -1 for no sweep; 9 where in the log to start, "-" for
-- the beginning, "(NUMBER-0" for behind an event, or "" for no events; 10 how many events to return; 11 the number
-- above which notices are wanted, or "" for no notices; 12 the epoch of what the caller delivered before the data went
-- back, or 0; 13 the number up to which it has delivered the events; from 14 on, the numbers of the others.
-- Returns {'ok', epoch, generation, last number, the state of the lease (0 free, 1 held by another member, 2 the
-- caller's as before, 3 acquired), how many users were set offline, how long ago the first of them was due, in how long
-- the next user may be due (-1 if nobody is online), the events, the notices, the number above which to ask for notices
-- next, how long ago the first was due who has not gone (see oldest_due), the number up to which every event is
-- delivered}. Each event is {number, id, kind, lateness, version, failures, how long ago the last heartbeat was}; the list
-- is empty unless the caller holds the lease. Each notice is {id, in how long the user is due, how long ago the user left, or
-- -1, how long after that the user was due}. Durations are microseconds.
local TOKEN, REQUEST, LIMIT, AFTER, COUNT = ARGV[6], ARGV[7], tonumber(ARGV[8]), ARGV[9], tonumber(ARGV[10])
local NOTICES_AFTER, HANDLED_EPOCH, HANDLED_THROUGH = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])

-- How many users are forgotten, and notices read or deleted, in one call: no poll is long.
local MAX_FORGOTTEN, MAX_NOTICES = 256, 1000

-- How many microseconds after its deadline a user may be set offline so that nothing is noted: see OVERDUE in store.rs.
local OVERDUE = 100000

-- Returns the state of the lease after the request. The last holder of an expired lease still counts as its holder: no
-- other member can have delivered anything meanwhile.
local function update_lease()
  local is_held = last_holder and leased_until > now
  local is_mine = last_holder == TOKEN
  if REQUEST == 'release' and is_mine then
    redis.call('HDEL', META, 'holder', 'until')
    return 0
  elseif (REQUEST == 'renew' and is_mine) or (REQUEST == 'acquire' and (is_mine or not is_held)) then
    redis.call('HSET', META, 'holder', TOKEN, 'until', now + LEASE)
    return is_mine and 2 or 3
  end
  return is_mine and 2 or is_held and 1 or 0
end

-- Returns when the next user may be set offline, or nil if nobody is online.
local function first_deadline()
  local score = redis.call('ZRANGE', USERS, 0, 0, 'WITHSCORES')[2]
  local first = score and math.max(math.floor(score / CLASSES) * 1000, held_until)
  local leaving = first and held_until > now and redis.call('ZRANGE', LEAVING, 0, 0, 'WITHSCORES')[2]
  return leaving and math.min(math.max(leaving * 1000, leaves_held_until), first) or first
end

-- Deletes what is known of users who went offline, and the notices, as soon as no heartbeat can be that late: after the
-- longest timeout in use, whosever it is.
local function forget()
  local latest = math.floor(now / 1000) - math.max(longest_timeout, math.ceil(TIMEOUT / 1000))
  local old = redis.call('ZRANGE', TOMBSTONES, '-inf', latest, 'BYSCORE', 'LIMIT', 0, MAX_FORGOTTEN)
  if #old > 0 then
    redis.call('ZREM', TOMBSTONES, unpack(old))
    redis.call('HDEL', OVERFLOW, unpack(old))
    redis.call('ZREM', UNCERTAIN, unpack(old))
  end
  -- A member needs a second to hear of a leave, even if every timeout is shorter.
  latest = math.min(latest, math.floor(now / 1000) - 1000)
  local stale = {}
  for _, entry in ipairs(redis.call('XRANGE', NOTICES, '-', '+', 'COUNT', MAX_FORGOTTEN)) do
    if tonumber(fields_of(entry).t) <= latest then
      stale[#stale + 1] = entry[1]
    end
  end
  if #stale > 0 then
    redis.call('XDEL', NOTICES, unpack(stale))
  end
end

-- Returns the first event of the log, or nil.
local function first_event()
  local first = redis.call('XRANGE', EVENTS, '-', '+', 'COUNT', 1)[1]
  return first and fields_of(first)
end

-- Notes that users were set offline up to `lateness` microseconds late, whose last event is the last of the log. `first` is
-- the first event in the log before.
local function note_overdue(lateness, first)
  local is_undelivered = first and tonumber(first.number) <= overdue_through
  overdue, overdue_through = is_undelivered and math.max(lateness, overdue) or lateness, last_number
  redis.call('HSET', META, 'overdue', overdue, 'overdue_through', overdue_through)
end

-- Returns the users whose deadline has passed, and their scores.
local function due_users()
  local max_score = string.format('(%.0f', (math.floor(now / 1000) + 1) * CLASSES)
  local found = redis.call('ZRANGE', USERS, '-inf', max_score, 'BYSCORE', 'LIMIT', 0, LIMIT, 'WITHSCORES')
  local ids, scores = {}, {}
  for i = 1, #found, 2 do
    ids[#ids + 1], scores[#scores + 1] = found[i], found[i + 1]
  end
  return ids, scores
end

-- Returns those of them who have left, and their scores: everyone else's deadline is held. Data of before the key was there
-- may list users who have come back since.
local function due_leaving_users()
  local found = redis.call('ZRANGE', LEAVING, '-inf', math.floor(now / 1000), 'BYSCORE', 'LIMIT', 0, LIMIT)
  if #found == 0 then
    return {}, {}
  end
  local ids, scores, stale = {}, {}, {}
  local known, overflows = redis.call('ZMSCORE', USERS, unpack(found)), redis.call('HMGET', OVERFLOW, unpack(found))
  for n, id in ipairs(found) do
    if known[n] and overflows[n] and select(2, parse_overflow(overflows[n])) then
      ids[#ids + 1], scores[#scores + 1] = id, known[n]
    else
      stale[#stale + 1] = id
    end
  end
  if #stale > 0 then
    redis.call('ZREM', LEAVING, unpack(stale))
  end
  return ids, scores
end

-- Sets users offline whose deadline has passed. Returns how many, and how long ago the first was due.
local function expire()
  local ids, scores = (held_until > now and due_leaving_users or due_users)()
  if #ids == 0 then
    return 0, 0
  end
  local overflows = redis.call('EXISTS', OVERFLOW) == 1 and redis.call('HMGET', OVERFLOW, unpack(ids)) or {}
  local tombstones, stale_overflows = {}, {}
  local first_due = math.huge
  for n = 1, #ids do
    first_due = math.min(first_due, math.floor(scores[n] / CLASSES) * 1000)
  end
  local is_overdue = first_due + OVERDUE < now
  local first, lag = is_overdue and first_event(), 0
  for n, id in ipairs(ids) do
    local deadline = math.floor(scores[n] / CLASSES)
    local seen, left, latest, is_leave = deadline - timeout_of(scores[n] % CLASSES), nil, nil, false
    if overflows[n] then
      seen, left, latest, is_leave = parse_overflow(overflows[n])
      if not left then
        stale_overflows[#stale_overflows + 1] = id
      end
    end
    local hold = left and math.min(held_until, math.max(leaves_held_until, latest * 1000)) or held_until
    local due = math.max(deadline * 1000, hold)
    lag = math.max(lag, now - due)
    append(id, is_leave and 'l' or 't', due, (seen or deadline) * 1000)
    tombstones[#tombstones + 1] = math.max(seen or 0, left or 0)
    tombstones[#tombstones + 1] = id
  end
  if is_overdue then
    note_overdue(now - first_due, first)
  end
  redis.call('ZREM', USERS, unpack(ids))
  redis.call('ZREM', UNCERTAIN, unpack(ids))
  redis.call('ZREM', LEAVING, unpack(ids))
  redis.call('ZADD', TOMBSTONES, unpack(tombstones))
  if #stale_overflows > 0 then
    redis.call('HDEL', OVERFLOW, unpack(stale_overflows))
  end
  return #ids, lag
end

-- Returns how many users were set offline, how long ago the first was due, and in how long the next may be due, or -1.
local function sweep()
  local first = first_deadline()
  -- After a gap in the sweeps, who is silent is not set offline for one timeout: perhaps no member could reach the store,
  -- and no heartbeat was written either.
  if swept_at and first and now - swept_at > TIMEOUT / 2 then
    hold_deadlines()
    first = first_deadline()
  end
  local is_due = first and first <= now
  local expired, lag = 0, 0
  forget()
  if is_due and LIMIT > 0 then
    expired, lag = expire()
    first = first_deadline()
  end
  -- A mark each eighth of the timeout is enough, since only half a timeout without one counts as a gap.
  if is_due or not swept_at or now - swept_at >= TIMEOUT / 8 then
    redis.call('HSET', META, 'swept', now)
    for _, key in ipairs(KEYS) do
      renew_key(key)
    end
  end
  return expired, lag, first and math.max(first - now, 0) or -1
end

-- Deletes the events that the caller delivered before the data went back.
local function delete_handled()
  local is_left = {}
  for i = 14, #ARGV do
    is_left[ARGV[i]] = true
  end
  local from = '-'
  while true do
    local entries = redis.call('XRANGE', EVENTS, from, entry_id(HANDLED_THROUGH), 'COUNT', 256)
    if #entries == 0 then
      return
    end
    local handled, numbers = {}, {}
    for _, entry in ipairs(entries) do
      local number = entry[1]:match('^%d+')
      if not is_left[number] then
        handled[#handled + 1] = entry[1]
        numbers[#numbers + 1] = number
      end
    end
    if #handled > 0 then
      redis.call('XDEL', EVENTS, unpack(handled))
      redis.call('HDEL', FAILURES, unpack(numbers))
    end
    from = '(' .. entries[#entries][1]
  end
end

-- Returns events of the log.
local function read_events()
  local found = redis.call('XRANGE', EVENTS, AFTER, '+', 'COUNT', COUNT)
  local numbers, list = {}, {}
  for n, entry in ipairs(found) do
    local event = fields_of(entry)
    numbers[n] = event.number
    list[n] = {event.number, event.u, event.k, math.max(now - event.d, 0), event.v, 0, math.max(now - event.s, 0)}
  end
  local failures = #found > 0 and redis.call('EXISTS', FAILURES) == 1 and redis.call('HMGET', FAILURES, unpack(numbers)) or {}
  for n, event in ipairs(list) do
    event[6] = failures[n] and tonumber(failures[n]:match('^%d+')) or 0
  end
  return list
end

-- Returns the notices, and the number above which to ask next.
local function read_notices()
  if not NOTICES_AFTER or NOTICES_AFTER >= last_number then
    return {}, last_number
  end
  local entries = redis.call('XRANGE', NOTICES, '(' .. entry_id(NOTICES_AFTER), '+', 'COUNT', MAX_NOTICES)
  if #entries == 0 then
    return {}, last_number
  end
  local ids, notices = {}, {}
  for n, entry in ipairs(entries) do
    ids[n] = fields_of(entry).u
  end
  local scores, overflows = redis.call('ZMSCORE', USERS, unpack(ids)), redis.call('HMGET', OVERFLOW, unpack(ids))
  for n, id in ipairs(ids) do
    local due, left_ago, after = 0, -1, 0
    if scores[n] then
      due = math.max(math.floor(scores[n] / CLASSES) * 1000 - now, 0)
    end
    if overflows[n] then
      local _, left, latest = parse_overflow(overflows[n])
      if left then
        left_ago, after = math.max(now - left * 1000, 0), math.max(latest - left, 0) * 1000
      end
    end
    notices[n] = {id, due, left_ago, after}
  end
  return notices, #entries == MAX_NOTICES and tonumber(entries[#entries][1]:match('^%d+')) or last_number
end

-- Returns how long ago the first of those was due whose event is not delivered or who are not set offline yet, or -1 if
-- there is nobody, and the number up to which every event is delivered.
local function oldest_due()
  local first = first_event()
  local score = redis.call('ZRANGE', USERS, 0, 0, 'WITHSCORES')[2]
  local due, delivered_through = score and math.floor(score / CLASSES) * 1000 or now + 1, last_number
  if first then
    local lateness = tonumber(first.number) <= overdue_through and overdue or 0
    due, delivered_through = math.min(due, first.d - lateness), first.number - 1
  end
  return due <= now and now - due or -1, delivered_through
end

local lease_state = update_lease()
local expired, lag, next_due = 0, 0, -1
if LIMIT >= 0 then
  expired, lag, next_due = sweep()
end
if HANDLED_EPOCH == epoch then
  delete_handled()
end
local reads_events = AFTER ~= '' and COUNT > 0 and lease_state >= 2 and now >= silent_until
local events = reads_events and read_events() or {}
local notices, notices_until = read_notices()
local oldest_age, delivered_through = oldest_due()
return {'ok', epoch, generation, last_number, lease_state, expired, lag, next_due, events, notices, notices_until,
  oldest_age, delivered_through}
