-- ARGV: now, key, the version expected (empty: any). Returns 1 and whether there was something, or 0 and the version that was found.
local key, expected = ARGV[2], ARGV[3]
local _, found = find(key)
if expected ~= '' and tonumber(expected) ~= (found or 0) then return {0, found or 0} end
remove(key)
clean()
return {1, found and 1 or 0}
