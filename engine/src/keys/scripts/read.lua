-- A range of a value. KEYS: full, bare (NONE for none). ARGV: field, offset, length.
-- Returns the bytes, or nil when there is nothing at the place.
local p = place_at(KEYS[1], KEYS[2], ARGV[1])
local first, length = tonumber(ARGV[2]), tonumber(ARGV[3])
local what, t = resolve(p)
if what == 's' then return call('GETRANGE', p.full, first, first + length - 1) end
if what == 'f' then
  return string.sub(call('HGET', p.bare, p.field), first + 1, first + length)
end
if what == 'c' then
  return string.sub(render(p.full, t), first + 1, first + length)
end
return false
