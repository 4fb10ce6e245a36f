-- Put dead letters back as new. ARGV: now, then their numbers. Returns for each whether it was still there.
local told = {}
for i = 2, #ARGV do
  local found = call('XRANGE', queue .. ':dead', ARGV[i] .. '-0', ARGV[i] .. '-0')[1]
  told[#told + 1] = found and 1 or 0
  if found then
    local body = found[2][2]
    local ticket = cjson.decode(body)
    call('XDEL', queue .. ':dead', ARGV[i] .. '-0')
    call('HDEL', queue .. ':buried', ticket[1] .. ':' .. ticket[4])
    add('dead:' .. kind_of(ticket), -1)
    if not twin_of(ticket) then enter({body = body, ticket = ticket, at = now_text, turn = '', place = ''}, now) end
    settle()
  end
end
conclude()
return told
