-- What the scripts about runs share. A run is a hash of columns (meta), a hash of what is long and seldom read (body), a stream of
-- entries (journal), and a hash of messages (inbox). All keys of a run have one hash tag.
local READY, RUNNING, PARKED, COMPLETED, CANCELLED, BURIED = '1', '2', '3', '4', '6', '7'

local function ended(status) return tonumber(status) >= 4 end

local function later(time, seconds) return string.format('%.6f', tonumber(time) + tonumber(seconds)) end

-- End a run that nobody owns any more; answers whether its parent is to be told: '1'.
local function finish(meta, body, status, result, now)
  local row = redis.call('HMGET', meta, 'notify', 'awaited', 'keep')
  local notify = row[1]
  if notify == '0' and row[2] == '1' then notify = '1' end
  local expires = ''
  if row[3] ~= '' then expires = later(now, row[3]) end
  redis.call('HSET', meta, 'status', status, 'owner', '', 'ticketed', '', 'wake_at', '', 'waits', '', 'notify', notify,
    'expires', expires, 'updated', now)
  redis.call('HSET', body, 'result', result)
  return notify
end

-- Make a run READY; answers what a ticket needs. `hint` names it among the runs without a ticket, where it was put before.
local function wake(meta, body, now, hint)
  local number = redis.call('HINCRBY', meta, 'wake', 1)
  redis.call('HSET', meta, 'status', READY, 'owner', '', 'ticketed', '', 'wake_at', '', 'waits', '', 'window', '1', 'updated', now,
    'hint', hint)
  return {number, redis.call('HGET', body, 'fixed')}
end

local function topic_of(message)
  local _, length, first = struct.unpack('>I8I4', message)
  return string.sub(message, first, first + length - 1)
end

local function receive(meta, inbox, id, topic, text, now)
  local seq = redis.call('HINCRBY', meta, 'inbox', 1)
  redis.call('HSET', inbox, 'm' .. id, struct.pack('>I8I4', seq, #topic) .. topic .. text)
  redis.call('HINCRBY', meta, 'untaken', 1)
  if topic == 'cancel' then redis.call('HINCRBY', meta, 'cancels', 1) end
  redis.call('HSET', meta, 'updated', now)
end

-- Put a message into a living run's inbox. Answers nil: it was there; {}: it is there now; else what a ticket needs, and of which
-- timer the run was woken.
local function deliver(meta, body, inbox, id, topic, text, now, hint)
  if redis.call('HEXISTS', inbox, 'm' .. id) == 1 then return nil end
  receive(meta, inbox, id, topic, text, now)
  local row = redis.call('HMGET', meta, 'status', 'waits', 'wake_at', 'fence')
  local unstarted = row[2] == 'window' or row[2] == 'delay'
  if row[1] ~= PARKED or (unstarted and topic ~= 'cancel') then return {} end
  local woken = wake(meta, body, now, hint)
  woken[3] = row[3] ~= '' and row[4] or ''
  return woken
end
