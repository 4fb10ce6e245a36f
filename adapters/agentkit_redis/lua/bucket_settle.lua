-- ARGV: now, key, what it really used. A key that still waits leaves the line; one that was settled before is let be.
local amount = string.match(call('HGET', limit .. ':kept', ARGV[2]) or '', '(.*):0')
if not amount then
  leave(ARGV[2])
  return 0
end
local level, rate, burst = fill()
call('HSET', limit .. ':kept', ARGV[2], amount .. ':1')
keep(math.min(burst, level + amount - ARGV[3]), rate, burst)
return 1
