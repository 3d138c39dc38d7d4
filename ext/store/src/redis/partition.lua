-- The beginning of every script that changes a partition: its keys, its clock, its epoch and its log. It is put in
-- front of the script's own text, so the locals below are the script's too.
--
-- KEYS: the nine keys of the partition, in the order of the locals below.
-- ARGV: 1 the epoch that the caller knows, or ""; 2 the config's timeout in microseconds; from 3 on, the script's own.
-- Returns {'replaced', epoch} if the caller knows another epoch: the data that it knew is lost, and the script does
-- nothing. Otherwise the script returns {'ok', epoch, …}.
--
-- Times are microseconds of the partition's clock, except deadlines in scores, which are milliseconds.
local USERS, EVENTS, LEASE, META, OVERFLOW, TOMBSTONES, FAILURES, DEAD_LETTERS, SUPERSEDED = unpack(KEYS)
local KNOWN_EPOCH, TIMEOUT = ARGV[1], tonumber(ARGV[2])

-- A user's score is deadline * CLASSES + class, where the class stands for a timeout: the time of the last heartbeat is
-- deadline - timeout and need not be kept. Scores are exact up to 2^53, so deadlines may be up to the year 2248.
local CLASSES = 1024
local LAST_DEADLINE = 8796093022207

-- Fields of META: the epoch; when the partition was swept last; until when nobody is set offline; how far the clock is
-- ahead of the server's; the last number that was given out; who acquired the lease last.
local meta = redis.call('HMGET', META, 'epoch', 'swept', 'hold', 'shift', 'last', 'holder')
local epoch, swept_at, held_until = meta[1], tonumber(meta[2]), tonumber(meta[3]) or 0
local clock_shift, last_number, last_holder = tonumber(meta[4]) or 0, tonumber(meta[5]) or 0, meta[6]

-- The partition's clock never goes back: the server's clock may be set back, or a server whose clock is behind take
-- over.
local server_time = redis.call('TIME')
local wall = server_time[1] * 1000000 + server_time[2]
local now = wall + clock_shift
if swept_at and now < swept_at then
  if swept_at - now > 1000000 then
    redis.call('HSET', META, 'shift', swept_at - wall)
  end
  now = swept_at
end

if not epoch then
  epoch = string.format('%.0f', wall)
  redis.call('HSET', META, 'epoch', epoch)
end
if KNOWN_EPOCH ~= '' and KNOWN_EPOCH ~= epoch then
  -- Nobody is set offline for one timeout: each process needs time to re-send its users.
  redis.call('HSET', META, 'hold', now + TIMEOUT)
  return {'replaced', epoch}
end

-- Whether any user of the partition has a dead letter; nil until the script has asked.
local has_dead_letters = nil

-- Appends an event to the log. A version is passed for an event that had one before; otherwise its number is its
-- version.
local function append(id, kind, due, version)
  last_number = math.max(last_number + 1, wall)
  redis.call('HSET', META, 'last', last_number)
  local number = string.format('%.0f-0', last_number)
  if version then
    redis.call('XADD', EVENTS, number, 'u', id, 'k', kind, 'd', due, 'v', version)
    return
  end
  redis.call('XADD', EVENTS, number, 'u', id, 'k', kind, 'd', due)
  if has_dead_letters == nil then
    has_dead_letters = redis.call('EXISTS', SUPERSEDED) == 1
  end
  if has_dead_letters and redis.call('HEXISTS', SUPERSEDED, id) == 1 then
    redis.call('HSET', SUPERSEDED, id, last_number)
  end
end

-- Returns the fields of an entry of the log or of the dead letters by name: u the user id, k the kind ("o" online, "t"
-- offline by timeout, "l" offline by a leave), d when it was due, v its version, number its number, and for a dead
-- letter f how often it failed and e the last error.
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

-- Returns the timeout that a class stands for, in microseconds. Class 0 stands for no timeout: the overflow holds the
-- times of such a user.
local function timeout_of(class)
  timeouts[class] = timeouts[class] or tonumber(redis.call('HGET', META, string.format('t%d', class))) or 0
  return timeouts[class]
end
