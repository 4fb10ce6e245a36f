-- A change of state of runs that nobody owns, or whose owner is dead. KEYS: meta, body of each.
-- ARGV: now, hint, verb, argument of the verb, then one word for each run. An answer for each.
local now, hint, verb, argument = clock(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local verbs = {}

-- Start a child that waited outside the window.
function verbs.start(meta, body, row)
  if row.status == PARKED and row.waits == 'window' then return {'woken', unpack(wake(meta, body, now, hint))} end
  return {ended(row.status) and row.window == '0' and 'back' or 'started'}
end

-- Note that a child's end is counted: '2', so that a child that is revived is not counted again.
function verbs.told(meta, body, row)
  if row.notify == '1' then redis.call('HSET', meta, 'notify', 2) end
  return {'told'}
end

-- Ring the timer that was set under the fence `word`.
function verbs.ring(meta, body, row, word)
  if row.fence ~= word then return {'stale'} end
  if row.status == RUNNING then return {'young'} end
  if row.status ~= PARKED or row.wake_at == '' then return {'stale'} end
  if tonumber(row.wake_at) > tonumber(now) then return {'early', row.wake_at} end
  return {'woken', unpack(wake(meta, body, now, hint))}
end

-- Free a run of the dead worker `word`. The turn ends claims of the dead that are still on their way.
function verbs.free(meta, body, row, word)
  redis.call('HINCRBY', meta, 'turn', 1)
  if row.status ~= RUNNING or row.owner ~= word then return {'not its'} end
  local crashes = redis.call('HINCRBY', meta, 'crashes', 1)
  local most, reason = string.match(argument, '^(%d+) (.*)$')
  if crashes >= tonumber(most) then
    finish(meta, body, BURIED, string.format(reason, crashes), now)
    return {'buried', crashes}
  end
  wake(meta, body, now, hint)
  return {'freed', crashes}
end

function verbs.bury(meta, body, row)
  if row.status ~= READY and row.status ~= PARKED then return {'no'} end
  return {'buried', finish(meta, body, BURIED, argument, now)}
end

function verbs.revive(meta, body, row)
  if row.status ~= BURIED then return {'no'} end
  redis.call('HSET', meta, 'crashes', 0, 'expires', '', 'notify', row.notify == '1' and '0' or row.notify)
  redis.call('HSET', body, 'result', '')
  return {'woken', unpack(wake(meta, body, now, hint))}
end

-- Note that the ticket of the wake `word` was put; answers under which hint the run was listed without one.
function verbs.ticketed(meta, body, row, word)
  if row.status ~= READY or row.wake ~= word then return {'no'} end
  redis.call('HSET', meta, 'ticketed', now)
  return {'put', row.hint}
end

local columns = {'status', 'owner', 'fence', 'wake', 'wake_at', 'waits', 'notify', 'window', 'hint'}
local answers = {}
for k = 1, #KEYS, 2 do
  local values, row = redis.call('HMGET', KEYS[k], unpack(columns)), {}
  for i, column in ipairs(columns) do row[column] = values[i] end
  local number = (k + 1) / 2
  answers[number] = row.status and verbs[verb](KEYS[k], KEYS[k + 1], row, ARGV[4 + number]) or {'missing'}
end
return answers
