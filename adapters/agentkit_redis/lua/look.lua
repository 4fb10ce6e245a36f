-- Rows of runs. KEYS: meta and body of each; ARGV: the columns of the body that are wanted.
local rows = {}
for i = 1, #KEYS, 2 do
  local meta = redis.call('HGETALL', KEYS[i])
  rows[#rows + 1] = #meta > 0 and {meta, redis.call('HMGET', KEYS[i + 1], unpack(ARGV))} or false
end
return rows
