-- Applies heartbeats and leaves, in order.
--
-- KEYS: see partition.lua.
-- ARGV: from 6 on, four arguments for each write: "heartbeat", "resend" (a heartbeat that the data may have lost), "prolong"
-- (one that only puts the deadline off of a user who is online) or "leave"; the user id; its age in microseconds; and the timeout of the heartbeat, or how long after the leave the user
-- is due, in milliseconds.
-- Returns {'ok', epoch, generation, last number, how many events were appended}.

-- For how many milliseconds two heartbeats or leaves have no certain order: see ORDER_TOLERANCE in store.rs.
local ORDER_TOLERANCE = 30

-- Until when deadlines are held, if they are.
local hold = held_until > now and held_until / 1000 or 0

local users, index_of = {}, {}
for i = 6, #ARGV, 4 do
  local id = ARGV[i + 1]
  if not index_of[id] then
    users[#users + 1] = id
    index_of[id] = #users
  end
end

local function call_if_exists(key, ...)
  return redis.call('EXISTS', key) == 1 and redis.call(...) or {}
end
local scores = redis.call('ZMSCORE', USERS, unpack(users))
local is_anyone_offline = false
for n = 1, #users do
  is_anyone_offline = is_anyone_offline or not scores[n]
end
local overflows = call_if_exists(OVERFLOW, 'HMGET', OVERFLOW, unpack(users))
local tombstones = is_anyone_offline and call_if_exists(TOMBSTONES, 'ZMSCORE', TOMBSTONES, unpack(users)) or {}
local uncertain = call_if_exists(UNCERTAIN, 'ZMSCORE', UNCERTAIN, unpack(users))

local classes = {}

-- Returns the class that stands for a timeout, or 0 if there are too many different timeouts.
local function class_of(timeout)
  local class = classes[timeout] or tonumber(redis.call('HGET', META, 'c' .. timeout))
  if not class then
    class = redis.call('HINCRBY', META, 'classes', 1)
    if class < CLASSES then
      redis.call('HSET', META, 'c' .. timeout, class, 't' .. class, timeout)
    else
      class = 0
    end
  end
  classes[timeout] = class
  return class
end

-- What is known of each user, by index: when the user was seen, the deadline if the user is online, the last leave since
-- the last heartbeat, and the soonest deadline that such leaves set to heartbeats before it.
local is_loaded, is_online, seen_at, deadlines = {}, {}, {}, {}
local left_at, latest_deadlines, is_leave, timeouts_of_users = {}, {}, {}, {}
local changed, certain, new_uncertain, appended = {}, {}, {}, 0

local function load_user(n)
  is_loaded[n] = true
  if overflows[n] then
    seen_at[n], left_at[n], latest_deadlines[n], is_leave[n] = parse_overflow(overflows[n])
  end
  if scores[n] then
    local score = tonumber(scores[n])
    is_online[n] = true
    deadlines[n] = math.floor(score / CLASSES)
    if not overflows[n] then
      seen_at[n] = deadlines[n] - timeout_of(score % CLASSES)
    end
  elseif tombstones[n] and not overflows[n] then
    seen_at[n] = tonumber(tombstones[n])
  end
end

-- Notes the longest timeout in use, for two timeouts and a little more, so that not each heartbeat writes it.
local function note_timeout(timeout)
  if timeout > longest_timeout or now > longest_until
    or (timeout == longest_timeout and longest_until < now + 2000 * timeout) then
    longest_timeout, longest_until = timeout, now + 2250 * timeout
    redis.call('HSET', META, 'longest', longest_timeout, 'longest_until', longest_until)
  end
end

-- Whether the members write heartbeats with other timeouts too seldom for a timeout: see Notice in store.rs. The longest one
-- in use is found anew when the one before has not been used for long; so another one is passed that is known.
local function is_shorter(timeout, other)
  return 3 * timeout < 2 * math.max(longest_timeout, other)
end

local has_notices = false

-- Has other members hear that a user's deadline was moved forward.
local function append_notice(id)
  has_notices = true
  redis.call('XADD', NOTICES, entry_id(next_number()), 'u', id, 't', math.ceil(now / 1000))
end

local function heartbeat(n, age, timeout, is_resend)
  note_timeout(timeout)
  local at = math.max(now - age, 0)
  local seen = math.ceil(at / 1000)
  -- What is resent is after a leave only if it was itself, and not because a later heartbeat is known.
  local came = seen
  if seen_at[n] and seen < seen_at[n] then
    -- After the data went back, the clock may have been set back too: a resent heartbeat counts whatever its time.
    if (left_at[n] or seen + ORDER_TOLERANCE < seen_at[n]) and not (is_resend and uncertain[n]) then
      if is_online[n] and not uncertain[n] and not left_at[n] and seen + timeout > deadlines[n]
        and is_shorter(deadlines[n] - seen_at[n], timeout) then
        -- A later one with a shorter timeout has overtaken it.
        append_notice(users[n])
      end
      return
    end
    -- Of two heartbeats without a certain order the later arrival counts: its timeout may be another one.
    seen = seen_at[n]
  end
  local is_uncertain = uncertain[n]
  local is_new = not seen_at[n] or is_uncertain
  local deadline = seen + timeout
  -- Of equal times the leave counts: the heartbeat may be written again, and a return is dated later than its leave.
  if not left_at[n] or came > left_at[n] then
    left_at[n], is_leave[n], timeouts_of_users[n] = nil, false, timeout
    if is_online[n] and not is_uncertain and deadline < deadlines[n]
      and is_shorter(timeout, deadlines[n] - seen_at[n]) then
      append_notice(users[n])
    end
  else
    is_leave[n] = latest_deadlines[n] < math.max(deadline, hold)
    deadline = math.min(deadline, latest_deadlines[n])
  end
  seen_at[n], deadlines[n], changed[n] = seen, deadline, true
  if is_online[n] and not is_uncertain then
    return
  end
  -- One that is written again seems a little later than the first time: see online_margin in store.rs.
  local margin = math.min(ORDER_TOLERANCE, math.floor(timeout / 4))
  if deadline > math.ceil(now / 1000) + margin then
    if is_uncertain then
      uncertain[n] = false
      certain[#certain + 1] = users[n]
    end
    is_online[n] = true
    append(users[n], 'o', seen > came and seen * 1000 or at)
    appended = appended + 1
  elseif is_resend and is_new then
    -- The data may have lost that the user was online. The sweep sets the user offline, but not before each process had
    -- time to write a later heartbeat. A number of its own: this, too, is noticed if the data go back.
    is_online[n], uncertain[n] = true, true
    next_number()
    new_uncertain[#new_uncertain + 1] = seen
    new_uncertain[#new_uncertain + 1] = users[n]
  elseif is_new then
    -- An older heartbeat may follow that another process writes again: these data know no transition.
    uncertain[n] = true
    new_uncertain[#new_uncertain + 1] = seen
    new_uncertain[#new_uncertain + 1] = users[n]
  end
end

local function leave(n, age, after)
  local left = math.ceil(math.max(now - age, 0) / 1000)
  if seen_at[n] and left + ORDER_TOLERANCE < seen_at[n] then
    return
  end
  if is_online[n] and left + after < math.max(deadlines[n], hold) then
    deadlines[n], is_leave[n], changed[n] = math.min(left + after, deadlines[n]), true, true
  end
  local last = left_at[n] or left
  local sooner = left_at[n] and latest_deadlines[n] or left + after
  left_at[n], latest_deadlines[n], changed[n] = math.max(left, last), math.min(left + after, sooner), true
  if left >= last or left + after < sooner then
    append_notice(users[n])
  end
end

for i = 6, #ARGV, 4 do
  local n = index_of[ARGV[i + 1]]
  if not is_loaded[n] then
    load_user(n)
  end
  local age, duration = tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  if ARGV[i] == 'leave' then
    leave(n, age, duration)
  elseif ARGV[i] ~= 'prolong' or (is_online[n] and not uncertain[n]) then
    heartbeat(n, age, duration, ARGV[i] == 'resend')
  end
end

local new_scores, new_leaving, new_tombstones, new_overflows = {}, {}, {}, {}
local stale_leaving, stale_tombstones, stale_overflows = {}, {}, {}

-- Returns the class of user n, who is online, or 0 if the overflow has to hold the times.
local function class_of_user(n)
  if left_at[n] or is_leave[n] or deadlines[n] >= LAST_DEADLINE then
    return 0
  end
  return class_of(timeouts_of_users[n])
end

for n, id in ipairs(users) do
  if changed[n] then
    local needs_overflow = left_at[n] ~= nil
    if is_online[n] then
      local class = class_of_user(n)
      needs_overflow = class == 0
      new_scores[#new_scores + 1] = math.min(deadlines[n], LAST_DEADLINE) * CLASSES + class
      new_scores[#new_scores + 1] = id
      if left_at[n] then
        new_leaving[#new_leaving + 1] = latest_deadlines[n]
        new_leaving[#new_leaving + 1] = id
      elseif overflows[n] then
        stale_leaving[#stale_leaving + 1] = id
      end
      if tombstones[n] then
        stale_tombstones[#stale_tombstones + 1] = id
      end
    else
      new_tombstones[#new_tombstones + 1] = math.max(seen_at[n] or 0, left_at[n] or 0)
      new_tombstones[#new_tombstones + 1] = id
    end
    if needs_overflow then
      new_overflows[#new_overflows + 1] = id
      new_overflows[#new_overflows + 1] = string.format('%.0f %.0f %.0f %d', seen_at[n] or -1, left_at[n] or -1,
        latest_deadlines[n] or -1, is_leave[n] and 1 or 0)
    elseif overflows[n] then
      stale_overflows[#stale_overflows + 1] = id
    end
  end
end

local function call_unless_empty(list, command, key)
  if #list > 0 then
    redis.call(command, key, unpack(list))
    if key ~= USERS then
      renew_key(key)
    end
  end
end
call_unless_empty(new_scores, 'ZADD', USERS)
call_unless_empty(new_leaving, 'ZADD', LEAVING)
call_unless_empty(stale_leaving, 'ZREM', LEAVING)
call_unless_empty(new_tombstones, 'ZADD', TOMBSTONES)
call_unless_empty(stale_tombstones, 'ZREM', TOMBSTONES)
call_unless_empty(new_overflows, 'HSET', OVERFLOW)
call_unless_empty(stale_overflows, 'HDEL', OVERFLOW)
call_unless_empty(new_uncertain, 'ZADD', UNCERTAIN)
call_unless_empty(certain, 'ZREM', UNCERTAIN)
if has_notices then
  renew_key(NOTICES)
end
if appended > 0 then
  renew_key(USERS)
  renew_key(EVENTS)
end
return {'ok', epoch, generation, last_number, appended}
