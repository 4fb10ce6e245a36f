-- Who stands in line: tickets without a key each for itself, of those with a key the first one, while none of them is leased.
local keys = {} -- those whose first ticket may have changed

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
  wake()
end
