-- Permits that are leased. l:held has the weight of each holder; `used` of l is their sum.
local function let_go(holder)
  local weight = call('HGET', limit .. ':held', holder)
  if not weight then return 0 end
  call('HDEL', limit .. ':held', holder)
  call('ZREM', limit .. ':ends', holder)
  call('HINCRBY', limit, 'used', -weight)
  return 1
end

-- Nothing stays of a semaphore that nobody holds or waits for.
local function tidy()
  if call('EXISTS', limit .. ':ends') == 0 then call('DEL', limit, limit .. ':tenants') end
end

for _, who in ipairs(call('ZRANGE', limit .. ':ends', '-inf', exact(now), 'BYSCORE')) do
  if let_go(who) == 0 then leave(who) end
end

-- What nobody touched for a week, and longer than any lease, is forgotten: its last holder died, and nobody asked since.
local function touch(lease_s)
  for _, part in ipairs({'', ':line', ':places', ':ends', ':tenants', ':held'}) do
    call('EXPIRE', limit .. part, math.ceil(math.max(7 * 24 * 3600, 2 * lease_s)))
  end
end

local function hold_on(holder, lease_s)
  local holds = call('HEXISTS', limit .. ':held', holder)
  if holds == 1 then call('ZADD', limit .. ':ends', exact(now + lease_s), holder) end
  return holds
end
