-- What happens to a worker's own rows. KEYS: worker, its claims. ARGV: verb, then what the verb needs.
local worker, claims, verb = KEYS[1], KEYS[2], ARGV[1]
local dead, beat = unpack(redis.call('HMGET', worker, 'dead', 'beat'))
local DEAD_KEPT_S = 30 * 86400 -- far longer than any process that was declared dead can sleep and still write

local function bury()
  redis.call('HSET', worker, 'dead', 1)
  redis.call('EXPIRE', worker, DEAD_KEPT_S)
end

if verb == 'register' then
  if dead == '1' then return 0 end
  if not dead then redis.call('HSET', worker, 'dead', 0, 'beat', 0, 'kinds', ARGV[2], 'host', ARGV[3]) end
  return 1
elseif verb == 'beat' then
  if dead ~= '0' then return false end
  redis.call('HINCRBY', worker, 'beat', 1)
  return redis.call('SMEMBERS', claims)
elseif verb == 'alive' then
  return dead == '0' and 1 or 0
elseif verb == 'enrol' then
  if dead ~= '0' then return 0 end
  for i = 2, #ARGV do redis.call('SADD', claims, ARGV[i]) end
  return 1
elseif verb == 'retire' then
  bury()
  return 1
elseif verb == 'reap' then
  -- The beat decides: a worker that beat again since it was seen is not declared dead.
  if dead == '0' and beat == ARGV[2] then bury() end
  return 1
end
return redis.error_reply('ERR unknown verb ' .. verb)
