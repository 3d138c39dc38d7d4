-- Takes out of the log what was delivered, and notes what failed. ARGV goes on with the caller's token, how many were
-- delivered, their numbers, and three words for each that failed: its number, how often, and the error. Answers 0, and
-- changes nothing, if the lease is another's.
if latest_holder ~= ARGV[3] then
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
  redis.call('HDEL', FAILED, unpack(numbers))
end
for i = 5 + count, #ARGV, 3 do
  redis.call('HSET', FAILED, ARGV[i], ARGV[i + 1] .. ' ' .. ARGV[i + 2])
end
return {'ok', epoch, 1}
