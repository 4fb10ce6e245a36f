-- ARGV: now, key, value, the version expected (empty: any), for how many seconds (empty: for ever).
-- Returns 1 and the new version, or 0 and the one that was found.
local key, expected, ttl_s = ARGV[2], ARGV[4], ARGV[5]
local _, found = find(key)
if expected ~= '' and tonumber(expected) ~= (found or 0) then return {0, found or 0} end
local version = call('INCR', values)
local ends = ttl_s ~= '' and string.format('%.6f', now + ttl_s) or ''
call('HSET', values .. ':of:' .. key, 'value', ARGV[3], 'version', version, 'ends', ends)
call('ZADD', values .. ':keys', 0, key)
if ends ~= '' then call('ZADD', values .. ':ends', ends, key) else call('ZREM', values .. ':ends', key) end
clean()
return {1, version}
