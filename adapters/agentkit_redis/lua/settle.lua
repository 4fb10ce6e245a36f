-- Count ended children in their parent's join and do what follows from it.
-- KEYS: parent's meta, body, inbox, joins; the group's bits (one per idx: counted), those that wait, those that are starting.
-- ARGV: now, hint, group, then for each child one of: `end` idx id good window | `started` idx id | `back` idx id (it ended before
-- it could start: its place is free again); all five words long.
local meta, body, inbox, joins, counted, waiting, starting = unpack(KEYS)
local now, hint, group = clock(ARGV[1]), ARGV[2], ARGV[3]
local stored = redis.call('HGET', joins, group)
if not stored then return {false, {}} end
local join = cjson.decode(stored)

local function count(idx, id, good, window)
  -- One that was cancelled while it waited outside the window leaves no place behind, unless it was just called in.
  redis.call('ZREM', waiting, id)
  local called = redis.call('ZREM', starting, id)
  if redis.call('SETBIT', counted, idx, 1) == 1 then return end
  if good == '1' then join.good = join.good + 1 else join.bad = join.bad + 1 end
  if window == '1' or called == 1 then join.active = join.active - 1 end
end

for i = 4, #ARGV, 5 do
  local verb, idx, id = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if verb == 'end' then
    count(idx, id, ARGV[i + 3], ARGV[i + 4])
  elseif redis.call('ZREM', starting, id) == 1 and verb == 'back' then
    join.active = join.active - 1
  end
end

local decided = join.bad > join.max_bad or join.good >= join.need_good or join.good + join.bad >= join.total
local woken = false
if decided and not join.fired then
  join.fired = true
  local status = redis.call('HGET', meta, 'status')
  if status and not ended(status) then
    woken = deliver(meta, body, inbox, 'join:' .. group, 'join:' .. group, 'null', now, hint) or false
    if woken and not woken[1] then woken = false end
  end
end
while not decided and join.active < join.window do
  local next = redis.call('ZPOPMIN', waiting)
  if not next[1] then break end
  redis.call('ZADD', starting, next[2], next[1])
  join.active = join.active + 1
end
redis.call('HSET', joins, group, cjson.encode(join))
return {woken, redis.call('ZRANGE', starting, 0, -1, 'WITHSCORES')}
