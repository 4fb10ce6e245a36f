-- How tickets enter the queue.
local FIRST = 10000000000000 -- numbers have 14 digits: in the order of text too, and exact when Lua writes them
local PURGE_EVERY = 100      -- tickets: turns of tenants that the line has passed are forgotten
local now = time_ms()
local now_text = text(now)
local last_turns = {}

-- A new number. An empty server gets its groups here: it may have lost all while its clients live on.
local function number()
  local last = get('n')
  if last == 0 then
    for priority = 0, 2 do redis.pcall('XGROUP', 'CREATE', stream_of(priority), GROUP, '0', 'MKSTREAM') end
    last = FIRST
  end
  set('n', last + 1)
  return text(last + 1)
end

-- The number and the place of the undelivered copy of a ticket.
local function twin_of(ticket)
  local known = copies_of(ticket[1])
  if known ~= '' then return string.match(known, ' ' .. ticket[4] .. ':(%d+):(%w)') end
end

local function remember(one, place)
  local ticket = one.ticket
  set_copies(ticket[1], copies_of(ticket[1]) .. ' ' .. ticket[4] .. ':' .. one.n .. ':' .. place)
  gather('ZADD', queue .. ':age:' .. kind_of(ticket), one.at, one.n)
  add('waiting', 1)
end

-- The place of a tenant's next ticket among all tenants': one turn after its last, or where the line has come to; a third of a turn where
-- the tenant has three times the weight. The ticket of an older version has none.
local function next_turn(one)
  local priority, tenant = one.ticket[6], one.ticket[5]
  local line, reached = queue .. ':turns:' .. priority, get('v' .. priority)
  local last = last_turns[line .. tenant]
  if not last then
    if get('n') % PURGE_EVERY == 0 then call('ZREMRANGEBYSCORE', line, '-inf', reached) end
    local known = get('r' .. priority) > 0 and call('ZSCORE', line, tenant) -- nobody waits: the line has come to its end
    last = math.max(tonumber(known or 0), reached)
  end
  last = last + 1 / math.max(1, one.ticket[9] or 1)
  last_turns[line .. tenant] = last
  local turn = text(last)
  gather('ZADD', line, turn, tenant)
  return turn
end

local function line_up(one)
  local key = one.ticket[7]
  if key == '' then
    offered(one)
  else
    gather('ZADD', queue .. ':key:' .. key, one.place ~= '' and one.place or one.n, one.ticket[6] .. ':' .. one.n)
    keys[key] = true
  end
end

-- Let a ticket wait under a new number: in its line, or aside until it is due.
local function enter(one, due)
  local place = due > now and 'd' or one.ticket[6]
  local kind = kind_of(one.ticket)
  one.n = number()
  if place ~= 'd' and one.turn == '' then one.turn = next_turn(one) end
  call('XADD', stream_of(place), one.n .. '-0', 't', one.body, 'at', one.at, 'turn', one.turn, 'place', one.place)
  if place == 'd' then
    call('ZADD', queue .. ':due', due, one.n)
    add('delayed:' .. kind, 1)
    ends_at(due)
    woken[kind] = true -- somebody has to learn until when to wait
  else
    line_up(one)
  end
  add('put:' .. kind, 1)
  remember(one, place)
end
