-- The queue: what its scripts share. A ticket that waits for a worker, or is with one, is an entry of the stream of its priority, so the
-- streams are as long as there is work. All else says who is next, and who holds what.
--
--   q                 hash of numbers: n, the last one given to a ticket; waiting, how many are undelivered; tried, the size of q:tried;
--                     next, before which no lease and no delay ends; by priority c0..c2, what it is owed, v0..v2, the turn it has come to,
--                     r0..r2, how many may be leased; by kind leased:KIND, delayed:KIND, dead:KIND, and put:KIND, how many ever entered
--   q:s0 .. q:s2      streams of tickets by priority, whose group `workers` has pending what is leased
--   q:later, q:due    stream of tickets that wait for a time, and that time
--   q:dead, q:buried  stream of dead letters, and the number of each by its ticket
--   q:ready:P:KIND    numbers of what may be leased, by turn          q:age:KIND   numbers of all undelivered, by the time of their put
--   q:ids             undelivered copies of a run: " wake:number:place", the place a priority or d for later
--   q:leases          "priority:number:try" by the end of the lease   q:tried      "deliveries:tries" of what was delivered before
--   q:turns:P         each tenant's last turn
--   q:key:KEY         "priority:number" of what waits for a key       q:heads      who is offered (o) or leased (l) of a key
--   q:wake:KIND       not empty when there may be something to lease: what waiting workers block on
--
-- A write that a server without memory refuses comes after one that it never refuses, or first: so a script happens whole or not at all.
local queue, call = KEYS[1], redis.call
local GROUP = 'workers'
local CHUNK = 1000 -- arguments of one call: Lua's stack takes some thousands

local function time_ms()
  if ARGV[1] ~= '' then return math.floor(ARGV[1] * 1000 + 0.5) end
  local at = call('TIME')
  return at[1] * 1000 + math.floor(at[2] / 1000)
end

-- A whole number as text: made once, for Redis would make it anew for each call, and more slowly.
local function text(number) return string.format('%d', number) end

local function stream_of(place) return queue .. (place == 'd' and ':later' or ':s' .. place) end

local function kind_of(ticket) return ticket[2] .. '@' .. ticket[3] end

local function ready_key(priority, kind) return queue .. ':ready:' .. priority .. ':' .. kind end

-- The numbers of the queue: those that `know` was asked for are read at once, all that changed are written at once.
local state, state_changed = {}, {}

local function know(...)
  local fields = {...}
  for i, value in ipairs(call('HMGET', queue, ...)) do state[fields[i]] = tonumber(value or 0) end
end

local function get(field)
  if not state[field] then know(field) end
  return state[field]
end

local function set(field, value)
  state[field] = value
  state_changed[field] = true
end

local function add(field, by) set(field, get(field) + by) end

-- Nothing that ends is overlooked if `next` is no later than it.
local function ends_at(time)
  local known = get('next')
  if known == 0 or time < known then set('next', time) end
end

-- Writes that are gathered, so that many tickets share a call, and sent by `settle`.
local gathered, copies, changed, woken, keys = {}, {}, {}, {}, {}

local function gather(command, key, one, two)
  local name = command .. key
  local list = gathered[name]
  if not list then
    list = {command = command, key = key}
    gathered[name] = list
  end
  list[#list + 1] = one
  if two then list[#list + 1] = two end
end

local function copies_of(run)
  if copies[run] == nil then copies[run] = call('HGET', queue .. ':ids', run) or '' end
  return copies[run]
end

local function set_copies(run, known)
  copies[run] = known
  changed[run] = true
end

local function forget(ticket)
  set_copies(ticket[1], (string.gsub(copies_of(ticket[1]), ' ' .. ticket[4] .. ':%d+:%w', '', 1)))
end

local function settle()
  for run in pairs(changed) do
    if copies[run] == '' then gather('HDEL', queue .. ':ids', run) else gather('HSET', queue .. ':ids', run, copies[run]) end
  end
  for field in pairs(state_changed) do gather('HSET', queue, field, text(state[field])) end
  for _, list in pairs(gathered) do
    for i = 1, #list, CHUNK do call(list.command, list.key, unpack(list, i, math.min(i + CHUNK - 1, #list))) end
  end
  gathered, changed, state_changed = {}, {}, {}
end

-- What stands in a stream under a number. Its turn is empty before it first stood in a line, its place unless it had another number before.
local function load(stream, n)
  local found = call('XRANGE', stream, n .. '-0', n .. '-0')[1]
  if not found then return nil end
  local fields = found[2]
  return {n = n, body = fields[2], ticket = cjson.decode(fields[2]), at = fields[4], turn = fields[6], place = fields[8]}
end

local function free_key(key, member)
  if call('HGET', queue .. ':heads', key) == 'l' .. member then call('HDEL', queue .. ':heads', key) end
  keys[key] = true
end

-- A ticket may be leased from now on, or no longer.
local function offered(one)
  local kind, priority = kind_of(one.ticket), one.ticket[6]
  gather('ZADD', ready_key(priority, kind), one.turn, one.n)
  add('r' .. priority, 1)
  woken[kind] = true
end

local function withdrawn(one)
  local priority = one.ticket[6]
  add('r' .. priority, -call('ZREM', ready_key(priority, kind_of(one.ticket)), one.n))
end

-- Offer the first ticket of a key, unless one of its tickets is leased.
local function offer(key)
  local heads = queue .. ':heads'
  local head = call('HGET', heads, key)
  if head and string.sub(head, 1, 1) == 'l' then return end
  local first = call('ZRANGE', queue .. ':key:' .. key, 0, 0)[1]
  if first and head == 'o' .. first then return end
  local function find(member)
    local priority, n = string.match(member or '', '(%d):(%d+)')
    return n and load(stream_of(priority), n)
  end
  local before, one = find(head or nil), find(first)
  if before then withdrawn(before) end
  if not one then
    call('HDEL', heads, key)
    return
  end
  call('HSET', heads, key, 'o' .. first)
  offered(one)
end

-- The end of every script that lets something wait.
local function conclude()
  if next(keys) then
    settle()
    for key in pairs(keys) do offer(key) end
  end
  settle()
  for kind in pairs(woken) do call('ZADD', queue .. ':wake:' .. kind, 0, '') end
end
