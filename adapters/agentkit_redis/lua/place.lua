-- Note children with their parent, and say which of them its join's window lets through. A child that was noted before keeps its place.
-- KEYS: parent's meta, joins, groups, the group's children, those that wait; with a claim on one server also its worker.
-- ARGV: owner and fence of the claim (empty: none), the group, then idx and id of each child.
local meta, joins, groups, children, waiting = unpack(KEYS, 1, 5)
local owner, fence, group = ARGV[1], ARGV[2], ARGV[3]
if owner ~= '' then
  local row = redis.call('HMGET', meta, 'status', 'owner', 'fence', 'cancels')
  if row[1] ~= '2' or row[2] ~= owner or row[3] ~= fence or row[4] ~= '0' then return false end
  if KEYS[6] and redis.call('HGET', KEYS[6], 'dead') ~= '0' then return false end
end
if #ARGV > 3 then redis.call('SADD', groups, group) end
local stored = redis.call('HGET', joins, group)
local join = stored and cjson.decode(stored)
local places = {}
for i = 4, #ARGV, 2 do
  local idx, id = ARGV[i], ARGV[i + 1]
  local inside = 1
  if redis.call('ZADD', children, 'NX', idx, id) == 0 then
    if redis.call('ZSCORE', waiting, id) then inside = 0 end
  elseif join then
    if join.bad > join.max_bad or join.active >= join.window then
      inside = 0
      redis.call('ZADD', waiting, idx, id)
    else
      join.active = join.active + 1
    end
  end
  places[#places + 1] = inside
end
if join then redis.call('HSET', joins, group, cjson.encode(join)) end
return {join and 1 or 0, places}
