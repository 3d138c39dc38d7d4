-- Removes delivered events from the log, and notes the failures of others.
--
-- KEYS: see partition.lua.
-- ARGV: 6 the caller's token; 7 how many events were delivered; then their numbers; then three arguments for each event
-- that failed: its number, how often it has failed, and the last error.
-- Returns {'ok', epoch, generation, last number, 1}, or 0 for the 1 and changes nothing unless the caller acquired the
-- lease last.
if last_holder ~= ARGV[6] then
  return {'ok', epoch, generation, last_number, 0}
end

local count = tonumber(ARGV[7])
if count > 0 then
  local entries, numbers = {}, {}
  for i = 1, count do
    numbers[i] = ARGV[7 + i]
    entries[i] = ARGV[7 + i] .. '-0'
  end
  redis.call('XDEL', EVENTS, unpack(entries))
  redis.call('HDEL', FAILURES, unpack(numbers))
end
for i = 8 + count, #ARGV, 3 do
  local entry = ARGV[i] .. '-0'
  if #redis.call('XRANGE', EVENTS, entry, entry) > 0 then
    redis.call('HSET', FAILURES, ARGV[i], ARGV[i + 1] .. ' ' .. ARGV[i + 2])
  end
end
return {'ok', epoch, generation, last_number, 1}
