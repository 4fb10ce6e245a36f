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
--   q:leases          "priority:number:try:ticket" by the end of the lease; the ticket, since a failover may give a number again
--   q:tried           "deliveries:tries" of what was delivered before
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

-- A number as text, exactly: made once, for Redis would make it anew for each call, and more slowly.
local function text(number) return string.format(number % 1 == 0 and '%d' or '%.17g', number) end

local function stream_of(place) return queue .. (place == 'd' and ':later' or ':s' .. place) end

local function kind_of(ticket) return ticket[2] .. '@' .. ticket[3] end

local function ready_key(priority, kind) return queue .. ':ready:' .. priority .. ':' .. kind end

-- The numbers of the queue: those that `know` was asked for are read at once, all that changed are written at once.
local state, changed_state = {}, {}

local function know(fields)
  local found = call('HMGET', queue, unpack(fields))
  for i = 1, #fields do state[fields[i]] = tonumber(found[i] or 0) end
end

local function get(field)
  if not state[field] then know({field}) end
  return state[field]
end

local function set(field, value)
  state[field] = value
  changed_state[field] = true
end

local function add(field, by) set(field, get(field) + by) end

-- Nothing that ends is overlooked if `next` is no later than it.
local function ends_at(time)
  local known = get('next')
  if known == 0 or time < known then set('next', time) end
end

-- Writes that are gathered, so that many tickets share a call, and sent by `settle`.
local gathered, copies, changed, woken = {}, {}, {}, {}

local function gather(command, key, one, two)
  local lists = gathered[command]
  if not lists then
    lists = {}
    gathered[command] = lists
  end
  local list = lists[key]
  if not list then
    lists[key] = {one, two}
  else
    list[#list + 1] = one
    if two then list[#list + 1] = two end
  end
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
  for command, lists in pairs(gathered) do
    for key, list in pairs(lists) do
      for i = 1, #list, CHUNK do call(command, key, unpack(list, i, math.min(i + CHUNK - 1, #list))) end
    end
  end
  if next(changed_state) then
    local words = {'HSET', queue}
    for field in pairs(changed_state) do
      words[#words + 1] = field
      words[#words + 1] = text(state[field])
    end
    call(unpack(words))
  end
  gathered, changed, changed_state = {}, {}, {}
end

-- Let somebody look who waits for tickets of these kinds.
local function wake()
  for kind in pairs(woken) do call('ZADD', queue .. ':wake:' .. kind, 0, '') end
end
