-- Create runs, or find them. KEYS: meta, body, journal of each.
-- ARGV: now, hint, then for each: delay, held, status, fence, waits, awaited, window, keep, fixed, input, snapshot, first seq, number of
-- entries, entries.
local now, hint = clock(ARGV[1]), ARGV[2]
local answers, a = {}, 3
for k = 1, #KEYS, 3 do
  local meta, body, journal = KEYS[k], KEYS[k + 1], KEYS[k + 2]
  local delay, held, status, fence, waits, awaited, window = unpack(ARGV, a, a + 6)
  local keep, fixed, input, snap, first, count = unpack(ARGV, a + 7, a + 12)
  first, count = tonumber(first), tonumber(count)
  local new = redis.call('EXISTS', meta) == 0
  if new then
    redis.call('HSET', meta, 'status', status, 'owner', '', 'fence', fence, 'seq', first + count - 1, 'inbox', 0, 'snap', snap,
      'wake', 0, 'ticketed', held == '1' and now or '', 'crashes', 0, 'notify', 0, 'wake_at', delay ~= '' and later(now, delay) or '',
      'waits', waits, 'updated', now, 'expires', '', 'untaken', 0, 'cancels', 0, 'turn', 0, 'awaited', awaited, 'window', window,
      'keep', keep, 'hint', hint, 'created', now)
    redis.call('HSET', body, 'fixed', fixed, 'input', input, 'result', '')
    for i = 1, count do redis.call('XADD', journal, (first + i - 1) .. '-0', 'b', ARGV[a + 12 + i]) end
  end
  answers[#answers + 1] = {new and 1 or 0, redis.call('HGETALL', meta), redis.call('HMGET', body, 'fixed', 'input', 'result')}
  a = a + 13 + count
end
return answers
