-- READY -> RUNNING under the next fence, if nothing happened since the row was read.
-- KEYS: meta of each. ARGV: now, owner, then fence and turn of each.
local now, owner = clock(ARGV[1]), ARGV[2]
local granted = {now}
for k = 1, #KEYS do
  local fence, turn = ARGV[2 * k + 1], ARGV[2 * k + 2]
  local row = redis.call('HMGET', KEYS[k], 'status', 'fence', 'turn')
  local mine = row[1] == '1' and row[2] == fence and row[3] == turn
  if mine then
    redis.call('HSET', KEYS[k], 'status', 2, 'owner', owner, 'fence', fence + 1, 'wake_at', '', 'waits', '', 'updated', now)
  end
  granted[k + 1] = mine and 1 or 0
end
return granted
