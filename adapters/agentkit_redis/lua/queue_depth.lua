-- How much waits. ARGV: now. Returns for each kind how many are undelivered, delayed, leased and dead, and the age in ms of the one that
-- waits longest.
local AT_ONCE = 500 -- tickets whose delay is over: bounds the time of the script, and is enough to have somebody come and bring them back
local now = time_ms()
local found, counts = call('HGETALL', queue), {}
for i = 1, #found, 2 do
  local counted, kind = string.match(found[i], '^(%a+):(.*)')
  if kind then
    counts[kind] = counts[kind] or {delayed = 0, leased = 0, dead = 0}
    counts[kind][counted] = tonumber(found[i + 1])
  end
end
-- A delay that is over is over, though nobody asked for a ticket since: where there is no worker, this is what calls for one.
for _, n in ipairs(call('ZRANGE', queue .. ':due', '-inf', now, 'BYSCORE', 'LIMIT', 0, AT_ONCE)) do
  local entry = call('XRANGE', stream_of('d'), n .. '-0', n .. '-0')[1]
  if entry then
    local kind = kind_of(cjson.decode(entry[2][2]))
    counts[kind].delayed = counts[kind].delayed - 1
  end
end
local answer = {}
for kind, of in pairs(counts) do
  local age = queue .. ':age:' .. kind
  local oldest = call('ZRANGE', age, 0, 0, 'WITHSCORES')
  answer[#answer + 1] = {kind, call('ZCARD', age), of.delayed, of.leased, of.dead, oldest[2] and math.max(0, now - oldest[2]) or 0}
end
return answer
