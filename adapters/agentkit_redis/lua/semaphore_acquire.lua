-- ARGV: now, who, tenant, permits, weight, for how many seconds. Returns whether it holds them.
local holder, tenant, permits, weight, lease_s = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local function acquire()
  if hold_on(holder, lease_s) == 1 then return 1 end
  local free = permits - number_of('used')
  if wait(holder, tenant, weight, now + lease_s, free) > free then return 0 end
  serve(holder)
  call('HSET', limit .. ':held', holder, weight)
  call('HINCRBY', limit, 'used', weight)
  return hold_on(holder, lease_s)
end

local granted = acquire()
touch(lease_s)
return granted
