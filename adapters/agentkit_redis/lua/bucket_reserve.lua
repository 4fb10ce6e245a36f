-- ARGV: now, key, tenant, amount, rate, burst. Returns the tokens that are missing, as text; empty when they were taken.
local key, tenant, amount = ARGV[2], ARGV[3], tonumber(ARGV[4])
local SLACK = 1e-6 -- of a token: times are seconds since 1970, whose last digit is a quarter of a microsecond

if call('HEXISTS', limit .. ':kept', key) == 1 then return '' end
for _, who in ipairs(call('ZRANGE', limit .. ':ends', '-inf', exact(now), 'BYSCORE')) do leave(who) end
local level, rate, burst = fill(tonumber(ARGV[5]), tonumber(ARGV[6]))
local missing = wait(key, tenant, amount, now + 1, math.huge) - level
if missing > SLACK then
  -- Twice the time that is said, and a second for a slow caller: who has not come by then has given up.
  local ends = math.min(now + KEPT_S, rate > 0 and now + 2 * missing / rate + 1 or math.huge)
  call('ZADD', limit .. ':ends', exact(ends), key)
  keep(level, rate, burst)
  return exact(missing)
end
serve(key)
call('HSET', limit .. ':kept', key, exact(amount) .. ':0')
call('ZADD', limit .. ':since', exact(now), key)
keep(level - amount, rate, burst)
forget_old()
return ''
