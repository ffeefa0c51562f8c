-- Puts a staged value where it belongs, in one step for every reader.
-- KEYS: stage, full, bare (see `some`), side ('' for none). ARGV: field, name, wish, mtime.
-- Returns as write.lua does; {'lost'} when there is no stage.
local p = {
  full = some(KEYS[2]),
  bare = some(KEYS[3]),
  field = ARGV[1],
}
local value = call('GET', KEYS[1])
if not value then return { 'lost' } end
local what = resolve(p) or room(p, ARGV[3])
if not what or what == 'c' then return { 'collection' } end
put_value(p, what, value)
call('DEL', KEYS[1])
return { 'ok', #value, mark_written(KEYS[4], ARGV[2], ARGV[4]), what }
