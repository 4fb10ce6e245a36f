-- How tickets leave their place and come back to it.

-- Deliveries without an answer, and all deliveries, under this number.
local function tried(n)
  local deliveries, tries = string.match(call('HGET', queue .. ':tried', n) or '0:0', '(%d+):(%d+)')
  return tonumber(deliveries), tonumber(tries)
end

local function set_tried(n, deliveries, tries)
  if deliveries + tries > 0 then add('tried', call('HSET', queue .. ':tried', n, deliveries .. ':' .. tries)) end
end

local function forget_tried(n)
  if get('tried') > 0 then add('tried', -call('HDEL', queue .. ':tried', n)) end
end

-- Take an undelivered ticket out.
local function drop(n, place)
  local one = load(stream_of(place), n)
  if not one then return nil end
  local kind, key = kind_of(one.ticket), one.ticket[7]
  call('XDEL', stream_of(place), n .. '-0')
  forget_tried(n)
  call('ZREM', queue .. ':age:' .. kind, n)
  forget(one.ticket)
  add('waiting', -1)
  if place == 'd' then
    call('ZREM', queue .. ':due', n)
    add('delayed:' .. kind, -1)
    return one
  end
  withdrawn(one)
  if key ~= '' then
    local member = place .. ':' .. n
    call('ZREM', queue .. ':key:' .. key, member)
    if call('HGET', queue .. ':heads', key) == 'o' .. member then call('HDEL', queue .. ':heads', key) end
    keys[key] = true
  end
  return one
end

-- End a lease that is no longer listed; its ticket stays in its stream.
local function let_go(lease)
  local priority, n, tries = string.match(lease, '^(%d):(%d+):(%d+)')
  local stream, id = stream_of(priority), n .. '-0'
  local pending = call('XPENDING', stream, GROUP, id, id, 1)[1]
  call('XACK', stream, GROUP, id)
  local one = load(stream, n)
  if not one then return nil end
  one.deliveries, one.tries = pending and pending[4] or 1, tonumber(tries)
  add('leased:' .. kind_of(one.ticket), -1)
  if one.ticket[7] ~= '' then free_key(one.ticket[7], priority .. ':' .. n) end
  return one
end

local function remove(one)
  call('XDEL', stream_of(one.ticket[6]), one.n .. '-0')
  forget_tried(one.n)
end

-- Whether a copy of what comes back at `due` waits already and is due first: it then stays, and this one goes.
local function yields(one, due)
  local n, place = twin_of(one.ticket)
  if not n then return false end
  local deliveries, tries = tried(n)
  one.deliveries = math.max(one.deliveries, deliveries)
  if place == 'd' and tonumber(call('ZSCORE', queue .. ':due', n)) > due then
    drop(n, place)
    return false
  end
  set_tried(n, one.deliveries, tries)
  return true
end

-- Make a ticket undelivered again, in its old place.
local function come_back(one, due)
  if yields(one, due) then
    remove(one)
  elseif due > now then
    remove(one)
    if one.place == '' then one.place = one.n end
    enter(one, due)
    set_tried(one.n, one.deliveries, 0)
  else
    set_tried(one.n, one.deliveries, one.tries)
    line_up(one)
    remember(one, one.ticket[6])
  end
  settle()
end
