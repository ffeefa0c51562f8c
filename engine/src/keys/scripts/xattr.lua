-- Extended attributes. KEYS: full, bare (NONE for none), x ('' for none). ARGV: field, then the names
-- that are wanted; without a name, all names.
-- Returns an array of values (nil for an absent one), or of names.
-- The `user.redis.` ones are made here; the others are fields of the hash x.
local p = place_at(KEYS[1], KEYS[2], ARGV[1])
local what, t = resolve(p)
local at = what == 'f' and p.bare or p.full
local made = {}
made['user.redis.type'] = function() return t end
made['user.redis.encoding'] = function() return call('OBJECT', 'ENCODING', at) end
made['user.redis.ttl'] = function()
  local ttl = call('PTTL', at)
  if ttl < 0 then return false end
  return string.format('%.3f', ttl / 1000)
end
made['user.redis.sha1'] = function()
  if what == 'c' then return redis.sha1hex(render(p.full, t)) end
  return redis.sha1hex(value_of(p, what))
end
local answer = {}
if #ARGV == 1 then
  if KEYS[3] ~= '' then answer = call('HKEYS', KEYS[3]) end
  if what then
    answer[#answer + 1] = 'user.redis.encoding'
    answer[#answer + 1] = 'user.redis.sha1'
    if call('PTTL', at) >= 0 then answer[#answer + 1] = 'user.redis.ttl' end
    answer[#answer + 1] = 'user.redis.type'
  end
  return answer
end
for n = 2, #ARGV do
  local make = made[ARGV[n]]
  if make then
    answer[n - 1] = what and make() or false
  else
    answer[n - 1] = KEYS[3] ~= '' and call('HGET', KEYS[3], ARGV[n]) or false
  end
end
return answer
