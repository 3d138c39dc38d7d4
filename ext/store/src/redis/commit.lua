-- Removes delivered events from the log, and notes the failures of others.
--
-- KEYS: see partition.lua.
-- ARGV: 3 the caller's token; 4 how many events were delivered; then their numbers; then three arguments for each event
-- that failed: its number, how often it has failed, and the last error.
-- Returns {'ok', epoch, 1}, or {'ok', epoch, 0} and changes nothing unless the caller acquired the lease last.
if last_holder ~= ARGV[3] then
  return {'ok', epoch, 0}
end

local count = tonumber(ARGV[4])
if count > 0 then
  local entries, numbers = {}, {}
  for i = 1, count do
    numbers[i] = ARGV[4 + i]
    entries[i] = ARGV[4 + i] .. '-0'
  end
  redis.call('XDEL', EVENTS, unpack(entries))
  redis.call('HDEL', FAILURES, unpack(numbers))
end
for i = 5 + count, #ARGV, 3 do
  redis.call('HSET', FAILURES, ARGV[i], ARGV[i + 1] .. ' ' .. ARGV[i + 2])
end
return {'ok', epoch, 1}
