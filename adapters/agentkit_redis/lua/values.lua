-- Values: what their scripts share.
--
--   v           the highest version ever given: one row for all, so that a version read before a removal never fits again
--   v:of:KEY    hash of a value: value, version, ends (empty: never)
--   v:keys      all keys, in byte order          v:ends   those that end, by when
local values, call = KEYS[1], redis.call
local CLEANED_AT_ONCE = 20
local now = tonumber(clock(ARGV[1]))

local function remove(key)
  call('DEL', values .. ':of:' .. key)
  call('ZREM', values .. ':keys', key)
  call('ZREM', values .. ':ends', key)
end

-- Value and version of a key, unless it has ended.
local function find(key)
  local found = call('HMGET', values .. ':of:' .. key, 'value', 'version', 'ends')
  if found[1] and (found[3] == '' or tonumber(found[3]) > now) then return found[1], tonumber(found[2]) end
end

-- Some of what has ended. Every write takes a few along, so that nothing stays for long.
local function clean()
  for _, key in ipairs(call('ZRANGE', values .. ':ends', '-inf', now, 'BYSCORE', 'LIMIT', 0, CLEANED_AT_ONCE)) do remove(key) end
end
