-- Take delivered tickets out. ARGV: now, then lease, kind and key of each. Returns for each whether the lease stood.
local told, done = {}, {}
know({'tried', 'leased:' .. (ARGV[3] or '')})
local again = get('tried') > 0
for i = 2, #ARGV, 3 do
  local lease, kind, key = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local stood = call('ZREM', queue .. ':leases', lease)
  told[#told + 1] = stood
  if stood == 1 then
    local priority, n = string.match(lease, '^(%d):(%d+)')
    done[priority] = done[priority] or {}
    table.insert(done[priority], n .. '-0')
    add('leased:' .. kind, -1)
    if again then add('tried', -call('HDEL', queue .. ':tried', n)) end
    if key ~= '' then free_key(key, priority .. ':' .. n) end
  end
end
for priority, ids in pairs(done) do
  for i = 1, #ids, CHUNK do
    local last = math.min(i + CHUNK - 1, #ids)
    call('XACK', stream_of(priority), GROUP, unpack(ids, i, last))
    call('XDEL', stream_of(priority), unpack(ids, i, last))
  end
end
conclude()
return told
