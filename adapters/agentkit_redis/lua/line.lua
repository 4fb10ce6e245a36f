-- Who waits for a part of something, fairly by tenant (start-time fair queueing). A place is fixed when it is taken: at the end of its
-- tenant's weight, or where the line stands now. So nobody who comes later, however light, gets ahead of it for long.
--
--   l           hash: n, the last number given; turn, where the line stands; what else the limit needs
--   l:line      "number:weight:who" of those who wait, by turn        l:places   the place of each who waits or holds
--   l:ends      when each loses its place or its hold                 l:tenants  the turn at which a tenant's next place begins
local limit, call = KEYS[1], redis.call
local now = tonumber(clock(ARGV[1]))

local function number_of(field) return tonumber(call('HGET', limit, field) or 0) end

-- A number as text that reads back as the same number.
local function exact(number) return string.format('%.17g', number) end

-- Take or keep a place; the weight of all up to it, or more than `enough` as soon as that is sure.
local function wait(who, tenant, weight, ends, enough)
  local place = call('HGET', limit .. ':places', who)
  if not place then
    local n = call('HINCRBY', limit, 'n', 1)
    local turn = math.max(number_of('turn'), tonumber(call('ZSCORE', limit .. ':tenants', tenant) or 0))
    place = string.format('%014d', n) .. ':' .. exact(weight) .. ':' .. who
    call('ZADD', limit .. ':line', exact(turn), place)
    call('ZADD', limit .. ':tenants', exact(turn + weight), tenant)
    call('HSET', limit .. ':places', who, place)
  end
  call('ZADD', limit .. ':ends', exact(ends), who)
  local before, first = 0, 0
  while true do
    local page = call('ZRANGE', limit .. ':line', first, first + 99)
    for _, other in ipairs(page) do
      before = before + tonumber(string.match(other, ':(.-):'))
      if other == place or before > enough then return before end
    end
    if #page < 100 then return before end
    first = first + 100
  end
end

local function leave(who)
  local place = call('HGET', limit .. ':places', who)
  if place then
    call('ZREM', limit .. ':line', place)
    call('HDEL', limit .. ':places', who)
    call('ZREM', limit .. ':ends', who)
  end
end

-- Its turn came: the line goes on from there.
local function serve(who)
  local turn = tonumber(call('ZSCORE', limit .. ':line', call('HGET', limit .. ':places', who)))
  leave(who)
  if turn > number_of('turn') then
    call('HSET', limit, 'turn', exact(turn))
    call('ZREMRANGEBYSCORE', limit .. ':tenants', '-inf', exact(turn))
  end
end
