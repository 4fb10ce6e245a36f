-- What nearly every write is: entries that go on where the journal ends, under a claim that holds. Anything else is left to write.lua.
-- KEYS: with `worker` = 1 the worker; then meta, journal of each run. ARGV: owner, worker, then for each run: fence, first seq, number of
-- entries, entries. An answer for each: inbox_seq, or false.
local call, owner, guarded = redis.call, ARGV[1], ARGV[2] == '1'
if guarded and call('HGET', KEYS[1], 'dead') ~= '0' then return 'fenced' end
local answers, n, a = {}, 0, 3
for k = guarded and 2 or 1, #KEYS, 2 do
  local row = call('HMGET', KEYS[k], 'owner', 'fence', 'seq', 'inbox')
  local first, count = tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2])
  n = n + 1
  if row[1] == owner and row[2] == ARGV[a] and row[3] + 1 == first then
    for i = 1, count do call('XADD', KEYS[k + 1], first + i - 1 .. '-0', 'b', ARGV[a + 2 + i]) end
    call('HSET', KEYS[k], 'seq', first + count - 1)
    answers[n] = row[4]
  else
    answers[n] = false
  end
  a = a + 3 + count
end
return answers
