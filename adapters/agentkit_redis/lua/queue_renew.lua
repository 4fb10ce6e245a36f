-- Keep leases. ARGV: now, for how many ms, who has them, then the leases. Returns for each whether it stood.
local until_ms = time_ms() + ARGV[2]
local told, mine = {}, {}
for i = 4, #ARGV do
  local stands = call('ZSCORE', queue .. ':leases', ARGV[i])
  told[#told + 1] = stands and 1 or 0
  if stands then
    local priority, n = string.match(ARGV[i], '^(%d):(%d+)')
    mine[priority] = mine[priority] or {}
    table.insert(mine[priority], n .. '-0')
    gather('ZADD', queue .. ':leases', until_ms, ARGV[i])
  end
end
-- So that those who look see how long a ticket has been idle. Before the ends of the leases: this one is not refused.
for priority, ids in pairs(mine) do
  for i = 1, #ids, CHUNK do
    local words = {'XCLAIM', stream_of(priority), GROUP, ARGV[3], 0, unpack(ids, i, math.min(i + CHUNK - 1, #ids))}
    words[#words + 1] = 'JUSTID'
    call(unpack(words))
  end
end
settle()
return told
