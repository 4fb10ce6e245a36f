-- The time as text of seconds since 1970: what the caller gives, else this server's clock.
local function clock(given)
  if given ~= '' then return given end
  local time = redis.call('TIME')
  return string.format('%d.%06d', time[1], time[2])
end
