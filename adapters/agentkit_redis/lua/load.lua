-- A journal from the entry after ARGV[1], or from the newest snapshot (empty). KEYS: meta, journal.
local first = ARGV[1]
if first == '' then first = redis.call('HGET', KEYS[1], 'snap') or '0' end
return redis.call('XRANGE', KEYS[2], first, '+')
