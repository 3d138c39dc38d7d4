-- Applies heartbeats and leaves, in order.
--
-- KEYS: see partition.lua.
-- ARGV: from 3 on, four arguments for each write: "heartbeat" or "leave"; the user id; its age in microseconds; and the
-- timeout of the heartbeat, or how long after the leave the user is due, in microseconds.
-- Returns {'ok', epoch, how many events were appended}.
local users, index_of = {}, {}
for i = 3, #ARGV, 4 do
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
local overflows = call_if_exists(OVERFLOW, 'HMGET', OVERFLOW, unpack(users))
local tombstones = call_if_exists(TOMBSTONES, 'ZMSCORE', TOMBSTONES, unpack(users))

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

-- Returns when user n, who is online, was last seen, and when it left (0 if it did not). The overflow holds both
-- exactly. A score only holds milliseconds, rounded up: the earliest possible time is returned, so that a leave right
-- after a heartbeat counts.
local function last_seen_and_left(n)
  if overflows[n] then
    local seen, left = overflows[n]:match('^(%d+) (%d+)$')
    return tonumber(seen), tonumber(left)
  end
  local score = tonumber(scores[n])
  return math.floor(score / CLASSES) * 1000 - timeout_of(score % CLASSES) - 999, 0
end

local changed, rejoined, appended = {}, {}, 0

local function set_overflow(n, seen, left)
  overflows[n] = string.format('%.0f %.0f', seen, left)
end

-- Makes user n online until the timeout after it was seen.
local function set_online(n, seen, timeout)
  local deadline = math.ceil((seen + timeout) / 1000)
  local class = 0
  overflows[n] = false
  if deadline < LAST_DEADLINE then
    class = class_of(timeout)
  else
    deadline = LAST_DEADLINE
  end
  if class == 0 then
    set_overflow(n, seen, 0)
  end
  scores[n] = deadline * CLASSES + class
  changed[n] = true
end

local function heartbeat(n, age, timeout)
  local seen = math.max(now - age, 0)
  if scores[n] then
    local last_seen, left = last_seen_and_left(n)
    if seen >= last_seen and seen > left then
      set_online(n, seen, timeout)
    end
    return
  end
  local tombstone = tonumber(tombstones[n])
  -- A user who went offline comes online again only by a heartbeat that is newer and has not expired yet.
  if tombstone and (seen <= tombstone or seen + tonumber(timeout) <= now) then
    return
  end
  if tombstone then
    rejoined[#rejoined + 1] = users[n]
    tombstones[n] = false
  end
  set_online(n, seen, timeout)
  append(users[n], 'o', seen)
  appended = appended + 1
end

local function leave(n, age, after)
  if not scores[n] then
    return
  end
  local left = math.max(now - age, 0)
  local seen = last_seen_and_left(n)
  local deadline = math.ceil((left + after) / 1000)
  local score = tonumber(scores[n])
  if seen <= left and deadline < math.floor(score / CLASSES) then
    scores[n] = deadline * CLASSES + score % CLASSES
    set_overflow(n, seen, left)
    changed[n] = true
  end
end

local had_overflow = {}
for n = 1, #users do
  had_overflow[n] = overflows[n]
end
for i = 3, #ARGV, 4 do
  local apply = ARGV[i] == 'heartbeat' and heartbeat or leave
  apply(index_of[ARGV[i + 1]], tonumber(ARGV[i + 2]), ARGV[i + 3])
end

local new_scores, new_overflows, stale_overflows = {}, {}, {}
for n, id in ipairs(users) do
  if changed[n] then
    new_scores[#new_scores + 1] = scores[n]
    new_scores[#new_scores + 1] = id
    if overflows[n] then
      new_overflows[#new_overflows + 1] = id
      new_overflows[#new_overflows + 1] = overflows[n]
    elseif had_overflow[n] then
      stale_overflows[#stale_overflows + 1] = id
    end
  end
end

local function call_unless_empty(list, command, key)
  if #list > 0 then
    redis.call(command, key, unpack(list))
  end
end
call_unless_empty(new_scores, 'ZADD', USERS)
call_unless_empty(new_overflows, 'HSET', OVERFLOW)
call_unless_empty(stale_overflows, 'HDEL', OVERFLOW)
call_unless_empty(rejoined, 'ZREM', TOMBSTONES)
return {'ok', epoch, appended}
