-- How much waits. ARGV: now. Returns for each kind how many are undelivered, delayed, leased and dead, and the age in ms of the one that
-- waits longest.
local now = time_ms()
local found, counts = call('HGETALL', queue), {}
for i = 1, #found, 2 do
  local counted, kind = string.match(found[i], '^(%a+):(.*)')
  if kind then
    counts[kind] = counts[kind] or {delayed = 0, leased = 0, dead = 0}
    counts[kind][counted] = tonumber(found[i + 1])
  end
end
local answer = {}
for kind, of in pairs(counts) do
  local age = queue .. ':age:' .. kind
  local oldest = call('ZRANGE', age, 0, 0, 'WITHSCORES')
  answer[#answer + 1] = {kind, call('ZCARD', age), of.delayed, of.leased, of.dead, oldest[2] and math.max(0, now - oldest[2]) or 0}
end
return answer
