-- Tokens that come at a rate and are settled by key.
--
--   l           hash, too: level, burst, rate, at
--   l:kept      "amount:settled" of each key that reserved            l:since    when it did
local KEPT_S = 24 * 3600 -- a step settled again after a take-over comes within minutes
local FORGOTTEN_AT_ONCE = 100

-- Fill the bucket up to now at its old rate. A clock that was set back must not drain it.
local function fill(rate, burst)
  local level, old_burst, old_rate, at = unpack(call('HMGET', limit, 'level', 'burst', 'rate', 'at'))
  if level then
    level = math.min(tonumber(old_burst), level + old_rate * math.max(0, now - at))
  else
    level = burst
  end
  return level, rate or tonumber(old_rate), burst or tonumber(old_burst)
end

-- What nobody asks for is forgotten when it is full again and no key can come any more.
local function keep(level, rate, burst)
  call('HSET', limit, 'level', exact(level), 'burst', exact(burst), 'rate', exact(rate), 'at', exact(now))
  for _, part in ipairs({'', ':line', ':places', ':ends', ':tenants', ':kept', ':since'}) do
    if rate > 0 then
      call('EXPIRE', limit .. part, math.ceil(math.min(1e9, 2 * KEPT_S + 2 * (burst - math.min(0, level)) / rate)))
    else
      call('PERSIST', limit .. part)
    end
  end
end

local function forget_old()
  for _, key in ipairs(call('ZRANGE', limit .. ':since', '-inf', exact(now - KEPT_S), 'BYSCORE', 'LIMIT', 0, FORGOTTEN_AT_ONCE)) do
    call('HDEL', limit .. ':kept', key)
    call('ZREM', limit .. ':since', key)
  end
end
