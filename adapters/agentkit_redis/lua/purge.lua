-- Delete a run that has ended, with all that hangs on it. KEYS: its meta, then everything else.
local status = redis.call('HGET', KEYS[1], 'status')
if status and tonumber(status) < 4 then return 0 end
for k = 2, #KEYS do redis.call('UNLINK', KEYS[k]) end
redis.call('UNLINK', KEYS[1])
return 1
