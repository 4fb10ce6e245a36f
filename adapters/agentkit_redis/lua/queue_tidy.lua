-- Forget consumers that hold nothing and were not heard of for long: workers that ended. One that lives is entered anew by its next lease.
-- ARGV: now, for how many ms.
for priority = 0, 2 do
  local consumers = redis.pcall('XINFO', 'CONSUMERS', stream_of(priority), GROUP)
  for i = 1, consumers.err and 0 or #consumers do
    local of = {}
    for j = 1, #consumers[i], 2 do of[consumers[i][j]] = consumers[i][j + 1] end
    if of.pending == 0 and of.idle >= tonumber(ARGV[2]) then call('XGROUP', 'DELCONSUMER', stream_of(priority), GROUP, of.name) end
  end
end
