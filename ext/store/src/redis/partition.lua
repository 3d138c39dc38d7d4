-- The beginning of every script that changes a partition: its keys, its clock, its data's identity and its log. It is
-- put in front of the script's own text, so the locals below are the script's too.
--
-- KEYS: the eleven keys of the partition, in the order of the locals below.
-- ARGV: what the caller knows of the data: 1 the epoch, or 0 if it knows none; 2 the generation; 3 the last number, also
-- of data that it knew before. 4 the config's timeout and 5 the length of the caller's leases, in microseconds; from 6 on, the script's own.
-- Returns {'replaced'} if the data are others than the caller knows, or older: the script does nothing. Otherwise the
-- script returns {'ok', epoch, generation, last number, …}.
--
-- Times are microseconds of the partition's clock. The times of users (seen, left, until, deadline) are milliseconds,
-- rounded up, so that they fit into a score.
local USERS, EVENTS, META, OVERFLOW, TOMBSTONES, FAILURES, DEAD_LETTERS, SUPERSEDED, NOTICES, UNCERTAIN, LEAVING =
  unpack(KEYS)
local KNOWN_EPOCH, KNOWN_GENERATION, KNOWN_LAST, TIMEOUT, LEASE =
  tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

-- The score of a user who is online is deadline * CLASSES + class, where the class stands for a timeout: the time of
-- the last heartbeat is deadline - timeout and need not be kept. Scores are exact up to 2^53, so deadlines may be up to
-- the year 2248.
local CLASSES = 1024
local LAST_DEADLINE = 8796093022207

-- For how long after the data went back no event is handed out: nearly every member polls within that time, and says
-- what it has delivered. A slower one that held the lease finds it free: the others leave it alone for one lease length.
local SETTLING = 1000000

-- For how many seconds a key is kept that no member renews.
local KEEP = 30 * 86400

-- Fields of META: the epoch; when the partition was swept last; until when who is silent is not set offline, and (at the
-- end) until when who has left is not; how far the clock is ahead of the server's; the last number that was given out; who
-- acquired the lease last, and until when it lasts; when the data last went back, by the server's clock; until when no event
-- is handed out; the longest timeout in use in milliseconds, and until when it counts; how late users were set offline at
-- most, of those who were late, and the number of the last of their events. Also the classes: see class_of in write.lua.
local meta = redis.call('HMGET', META, 'epoch', 'swept', 'hold', 'shift', 'last', 'holder', 'until', 'generation',
  'silent', 'longest', 'longest_until', 'overdue', 'overdue_through', 'leave_hold')
local epoch, swept_at, held_until = tonumber(meta[1]), tonumber(meta[2]), tonumber(meta[3]) or 0
local clock_shift, last_number, last_holder = tonumber(meta[4]) or 0, tonumber(meta[5]) or 0, meta[6]
local leased_until, generation, silent_until = tonumber(meta[7]) or 0, tonumber(meta[8]) or 0, tonumber(meta[9]) or 0
local longest_timeout, longest_until = tonumber(meta[10]) or 0, tonumber(meta[11]) or 0
local overdue, overdue_through = tonumber(meta[12]) or 0, tonumber(meta[13]) or 0
local leaves_held_until = tonumber(meta[14]) or 0

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

-- Holds the deadlines, as heartbeats may be missing: for one timeout. Those of users who have left are held for one lease
-- length: within it each member writes what it knows, so that a later heartbeat undoes the leave. No member shortens the
-- hold of another one.
local function hold_deadlines()
  held_until = math.max(held_until, now + TIMEOUT)
  leaves_held_until = math.max(leaves_held_until, now + math.min(LEASE, TIMEOUT))
  redis.call('HSET', META, 'hold', held_until, 'leave_hold', leaves_held_until)
end

if not epoch then
  epoch = wall
  redis.call('HSET', META, 'epoch', epoch)
  redis.call('EXPIRE', META, KEEP)
end
if KNOWN_EPOCH == 0 then
  if KNOWN_LAST > last_number then
    -- The caller knew other data before, which were lost.
    last_number = KNOWN_LAST
    redis.call('HSET', META, 'last', last_number)
  end
else
  local is_same = KNOWN_EPOCH == epoch and KNOWN_GENERATION == generation
  local is_older = KNOWN_EPOCH == epoch
    and (KNOWN_GENERATION > generation or (KNOWN_GENERATION == generation and KNOWN_LAST > last_number))
  if not is_same or is_older then
    hold_deadlines()
    redis.call('HSET', META, 'last', math.max(last_number, KNOWN_LAST))
    if is_older then
      -- The data went back: whether a user has come or gone since is not known. The generation is not only one more, as the
      -- data may be from before a finding that another member knows.
      redis.call('HSET', META, 'generation', math.max(KNOWN_GENERATION + 1, wall), 'silent', now + SETTLING)
      redis.call('ZUNIONSTORE', UNCERTAIN, 2, USERS, TOMBSTONES)
    end
    return {'replaced'}
  end
end

-- Returns the next number: each is greater than all before, also if the data were lost in between.
local function next_number()
  last_number = math.max(last_number + 1, wall)
  redis.call('HSET', META, 'last', last_number)
  return last_number
end

-- Returns the id of an entry of a stream.
local function entry_id(number)
  return string.format('%.0f-0', number)
end

-- Whether any user of the partition has a dead letter; nil until the script has asked.
local has_dead_letters = nil

-- Appends an event to the log. The time of the last heartbeat is nil where it is `due`. A version is passed for an event
-- that had one before; otherwise its number is its version.
local function append(id, kind, due, seen, version)
  local number = next_number()
  local fields = {'u', id, 'k', kind, 'd', due}
  if seen then
    fields[7], fields[8] = 's', seen
  end
  if version then
    fields[#fields + 1], fields[#fields + 2] = 'v', version
  end
  redis.call('XADD', EVENTS, entry_id(number), unpack(fields))
  if version then
    return
  end
  if has_dead_letters == nil then
    has_dead_letters = redis.call('EXISTS', SUPERSEDED) == 1
  end
  if has_dead_letters and redis.call('HEXISTS', SUPERSEDED, id) == 1 then
    redis.call('HSET', SUPERSEDED, id, number)
  end
end

-- Returns the fields of an entry of the log or of the dead letters by name: u the user id, k the kind ("o" online, "t"
-- offline by timeout, "l" offline by a leave), d when it was due, s when the user's last heartbeat was (an `online`, and an
-- event of an older version of the gem, has no such field: it is d then), v its version, number its number, and for a dead
-- letter f how often it failed and e the last error.
local function fields_of(entry)
  local fields = {}
  for i = 1, #entry[2], 2 do
    fields[entry[2][i]] = entry[2][i + 1]
  end
  fields.number = entry[1]:match('^%d+')
  fields.s, fields.v = fields.s or fields.d, fields.v or fields.number
  return fields
end

local timeouts = {}

-- Returns the timeout that a class stands for, in milliseconds. Class 0 stands for no timeout: the overflow holds the
-- times of such a user.
local function timeout_of(class)
  timeouts[class] = timeouts[class] or tonumber(redis.call('HGET', META, string.format('t%d', class))) or 0
  return timeouts[class]
end

-- Parses an entry of the overflow: when the user was seen (nil if only a leave is known), when it left (nil if it did
-- not), the latest deadline of heartbeats from before the leave, and whether a leave has set the deadline.
local function parse_overflow(text)
  local seen, left, latest, is_leave = text:match('^(%-?%d+) (%-?%d+) (%-?%d+) (%d)$')
  seen, left = tonumber(seen), tonumber(left)
  return seen >= 0 and seen or nil, left >= 0 and left or nil, tonumber(latest), is_leave == '1'
end

-- Has the server delete a key that no member renews any more. A key that is renewed often is not written each time.
local function renew_key(key)
  local ttl = redis.call('TTL', key)
  if ttl ~= -2 and ttl < KEEP - 3600 then
    redis.call('EXPIRE', key, KEEP)
  end
end
