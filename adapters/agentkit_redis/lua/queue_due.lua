-- Make undelivered what time brings back: leases that ran out, delays that are over. ARGV: now.
local AT_ONCE = 500 -- tickets: bounds the time of the script

for _, lease in ipairs(call('ZRANGE', queue .. ':leases', '-inf', now, 'BYSCORE', 'LIMIT', 0, AT_ONCE)) do
  call('ZREM', queue .. ':leases', lease)
  local one = let_go(lease)
  if one then come_back(one, now) end
end
for _, n in ipairs(call('ZRANGE', queue .. ':due', '-inf', now, 'BYSCORE', 'LIMIT', 0, AT_ONCE)) do
  local deliveries = tried(n)
  local one = drop(n, 'd')
  if one then
    enter(one, now)
    set_tried(one.n, deliveries, 0)
  else
    call('ZREM', queue .. ':due', n)
  end
  settle()
end
call('DEL', queue .. ':none') -- what comes now is then not refused by a server without memory, also when nothing was brought back
set('next', 0)
for _, key in ipairs({':leases', ':due'}) do
  local head = call('ZRANGE', queue .. key, 0, 0, 'WITHSCORES')
  if head[2] then ends_at(tonumber(head[2])) end
end
conclude()
