-- Puts dead letters at the end of the log again, but those that are superseded: these are dropped. ARGV goes on with how many
-- may be looked at. Answers how many there were of both, and how many are left.
local requeued, dropped = 0, 0
for _, entry in ipairs(redis.call('XRANGE', DEAD, '-', '+', 'COUNT', ARGV[3])) do
  local letter = fields_of(entry)
  if (tonumber(redis.call('HGET', SUPERSEDED, letter.u)) or 0) > tonumber(letter.v) then
    dropped = dropped + 1
  else
    append(letter.u, letter.k, letter.d, letter.v)
    requeued = requeued + 1
  end
  redis.call('XDEL', DEAD, entry[1])
end
local remaining = redis.call('XLEN', DEAD)
if remaining == 0 then
  redis.call('DEL', SUPERSEDED)
end
return {'ok', epoch, requeued, dropped, remaining}
