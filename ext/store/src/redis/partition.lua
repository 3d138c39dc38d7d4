-- What every script on a partition begins with: its keys, its clock, its epoch and its log.
--
-- KEYS are all keys of the partition. ARGV begins with the epoch that the caller knows (empty if it knows none) and the
-- config's timeout. Times are microseconds of the partition's clock, deadlines are milliseconds.
local USERS, EVENTS, LEASE, META, OVERFLOW, TOMBSTONES, FAILED, DEAD, SUPERSEDED = unpack(KEYS)
local KNOWN, TIMEOUT = ARGV[1], tonumber(ARGV[2])

-- A user's score is deadline * CLASSES + class, where the class says which timeout that is: so when the user was seen need
-- not be kept. Scores are exact up to 2^53, so deadlines up to the year 2248.
local CLASSES = 1024
local LAST_DEADLINE = 8796093022207

local meta = redis.call('HMGET', META, 'epoch', 'swept', 'hold', 'shift', 'last', 'holder')
local epoch, swept, hold = meta[1], tonumber(meta[2]), tonumber(meta[3]) or 0
local shift, last, latest_holder = tonumber(meta[4]) or 0, tonumber(meta[5]) or 0, meta[6]

-- The server's clock may be set back, or another server take over whose clock is behind: this one never goes back.
local time = redis.call('TIME')
local wall = time[1] * 1000000 + time[2]
local now = wall + shift
if swept and now < swept then
  if swept - now > 1000000 then
    redis.call('HSET', META, 'shift', swept - wall)
  end
  now = swept
end

if not epoch then
  epoch = string.format('%.0f', wall)
  redis.call('HSET', META, 'epoch', epoch)
end
if KNOWN ~= '' and KNOWN ~= epoch then
  -- The data that the caller knew are lost. Whoever beats gets a timeout to be told of again, by whichever process.
  redis.call('HSET', META, 'hold', now + TIMEOUT)
  return {'replaced', epoch}
end

local has_dead = nil

-- Appends an event to the log. Its number is its version too, unless it is an old one's.
local function append(id, kind, due, version)
  last = math.max(last + 1, wall)
  redis.call('HSET', META, 'last', last)
  local number = string.format('%.0f-0', last)
  if version then
    redis.call('XADD', EVENTS, number, 'u', id, 'k', kind, 'd', due, 'v', version)
    return
  end
  redis.call('XADD', EVENTS, number, 'u', id, 'k', kind, 'd', due)
  if has_dead == nil then
    has_dead = redis.call('EXISTS', SUPERSEDED) == 1
  end
  if has_dead and redis.call('HEXISTS', SUPERSEDED, id) == 1 then
    redis.call('HSET', SUPERSEDED, id, last)
  end
end

-- The fields of an entry of the log or of the dead letters, by name.
local function fields_of(entry)
  local fields = {}
  for i = 1, #entry[2], 2 do
    fields[entry[2][i]] = entry[2][i + 1]
  end
  fields.number = entry[1]:match('^%d+')
  fields.v = fields.v or fields.number
  return fields
end

local timeouts = {}

-- The timeout that a score's class stands for. (Class 0 stands for none: of such a user everything is kept in the overflow.)
local function timeout_of(class)
  timeouts[class] = timeouts[class] or tonumber(redis.call('HGET', META, string.format('t%d', class))) or 0
  return timeouts[class]
end
