-- Writes ranges of a value. KEYS: full, bare (NONE for none), side ('' for none).
-- ARGV: field, name, mode, wish, mtime, limit, then offset and data in turn.
-- Mode 'w' writes into the value that is there; 'r' replaces it whole, or makes
-- it, in one step for every reader. TTLs stay.
-- Returns {'ok', size, version of the side hash or -1, 's' or 'f' as the value is a
-- string or a field}, {'gone'} when there is no value to write into, {'collection'},
-- or {'big'}; nothing is written then.
local p = place_at(KEYS[1], KEYS[2], ARGV[1])
local side, name, mode = KEYS[3], ARGV[2], ARGV[3]
local limit = tonumber(ARGV[6])
local what = resolve(p)
if what == 'c' then return { 'collection' } end
for n = 7, #ARGV, 2 do
  if tonumber(ARGV[n]) + #ARGV[n + 1] > limit then return { 'big' } end
end
local size
if mode == 'r' then
  what = what or room(p, ARGV[4])
  if not what then return { 'collection' } end
  local value = ''
  for n = 7, #ARGV, 2 do value = splice(value, tonumber(ARGV[n]), ARGV[n + 1]) end
  put_value(p, what, value)
  size = #value
elseif not what then
  return { 'gone' }
elseif what == 's' then
  size = call('STRLEN', p.full)
  for n = 7, #ARGV, 2 do size = call('SETRANGE', p.full, ARGV[n], ARGV[n + 1]) end
else
  local value = call('HGET', p.bare, p.field)
  for n = 7, #ARGV, 2 do value = splice(value, tonumber(ARGV[n]), ARGV[n + 1]) end
  put_value(p, what, value)
  size = #value
end
return { 'ok', size, mark_written(side, name, ARGV[5]), what }
