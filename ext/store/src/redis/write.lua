-- Takes beats and leaves in. ARGV goes on with four words for each: "heartbeat" or "leave", the id, its age, and for how long
-- it is good or how long after it the user is due. Answers how many events it has appended.
local users, place = {}, {}
for i = 3, #ARGV, 4 do
  local id = ARGV[i + 1]
  if not place[id] then
    users[#users + 1] = id
    place[id] = #users
  end
end

local function if_any(key, ...)
  return redis.call('EXISTS', key) == 1 and redis.call(...) or {}
end
local scores = redis.call('ZMSCORE', USERS, unpack(users))
local overflows = if_any(OVERFLOW, 'HMGET', OVERFLOW, unpack(users))
local tombstones = if_any(TOMBSTONES, 'ZMSCORE', TOMBSTONES, unpack(users))

local classes = {}

-- The class of a timeout, or 0 if there are too many different ones.
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

-- When a user who is online was seen, and when it left (0 if it has not): an overflow one has both kept. Else it may have been
-- up to a millisecond later: who leaves at once after a beat has left.
local function known(n)
  if overflows[n] then
    local seen, left = overflows[n]:match('^(%d+) (%d+)$')
    return tonumber(seen), tonumber(left)
  end
  local score = tonumber(scores[n])
  return math.floor(score / CLASSES) * 1000 - timeout_of(score % CLASSES) - 999, 0
end

local changed, returning, appended = {}, {}, 0

local function keep_overflow(n, seen, left)
  overflows[n] = string.format('%.0f %.0f', seen, left)
end

local function put(n, seen, timeout)
  local deadline = math.ceil((seen + timeout) / 1000)
  local class = 0
  overflows[n] = false
  if deadline < LAST_DEADLINE then
    class = class_of(timeout)
  else
    deadline = LAST_DEADLINE
  end
  if class == 0 then
    keep_overflow(n, seen, 0)
  end
  scores[n] = deadline * CLASSES + class
  changed[n] = true
end

local function heartbeat(n, age, timeout)
  local seen = math.max(now - age, 0)
  if scores[n] then
    local before, left = known(n)
    if seen >= before and seen > left then
      put(n, seen, timeout)
    end
    return
  end
  local tombstone = tonumber(tombstones[n])
  -- Who has been set offline comes back only by a beat after that, or one that is still good.
  if tombstone and (seen <= tombstone or seen + tonumber(timeout) <= now) then
    return
  end
  if tombstone then
    returning[#returning + 1] = users[n]
    tombstones[n] = false
  end
  put(n, seen, timeout)
  append(users[n], 'o', seen)
  appended = appended + 1
end

local function leave(n, age, after)
  if not scores[n] then
    return
  end
  local left = math.max(now - age, 0)
  local seen = known(n)
  local deadline = math.ceil((left + after) / 1000)
  local score = tonumber(scores[n])
  if seen <= left and deadline < math.floor(score / CLASSES) then
    scores[n] = deadline * CLASSES + score % CLASSES
    keep_overflow(n, seen, left)
    changed[n] = true
  end
end

local had_overflow = {}
for n = 1, #users do
  had_overflow[n] = overflows[n]
end
for i = 3, #ARGV, 4 do
  local apply = ARGV[i] == 'heartbeat' and heartbeat or leave
  apply(place[ARGV[i + 1]], tonumber(ARGV[i + 2]), ARGV[i + 3])
end

local moved, kept, dropped = {}, {}, {}
for n, id in ipairs(users) do
  if changed[n] then
    moved[#moved + 1] = scores[n]
    moved[#moved + 1] = id
    if overflows[n] then
      kept[#kept + 1] = id
      kept[#kept + 1] = overflows[n]
    elseif had_overflow[n] then
      dropped[#dropped + 1] = id
    end
  end
end

local function unless_empty(list, command, key)
  if #list > 0 then
    redis.call(command, key, unpack(list))
  end
end
unless_empty(moved, 'ZADD', USERS)
unless_empty(kept, 'HSET', OVERFLOW)
unless_empty(dropped, 'HDEL', OVERFLOW)
unless_empty(returning, 'ZREM', TOMBSTONES)
return {'ok', epoch, appended}
