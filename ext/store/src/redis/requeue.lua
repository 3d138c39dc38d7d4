-- Appends dead letters to the log again. Superseded ones are deleted instead.
--
-- KEYS: see partition.lua.
-- ARGV: 6 the maximum number of dead letters for this call.
-- Returns {'ok', epoch, generation, last number, how many were requeued, how many were dropped, how many are left}.
local requeued, dropped = 0, 0
for _, entry in ipairs(redis.call('XRANGE', DEAD_LETTERS, '-', '+', 'COUNT', ARGV[6])) do
  local letter = fields_of(entry)
  if (tonumber(redis.call('HGET', SUPERSEDED, letter.u)) or 0) > tonumber(letter.v) then
    dropped = dropped + 1
  else
    append(letter.u, letter.k, letter.d, letter.s, letter.v)
    requeued = requeued + 1
  end
  redis.call('XDEL', DEAD_LETTERS, entry[1])
end
local remaining = redis.call('XLEN', DEAD_LETTERS)
if remaining == 0 then
  redis.call('DEL', SUPERSEDED)
end
return {'ok', epoch, generation, last_number, requeued, dropped, remaining}
