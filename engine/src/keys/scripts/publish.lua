-- Puts a staged value where it belongs, in one step for every reader.
-- KEYS: stage, full, bare (NONE for none), side ('' for none). ARGV: field, name, wish, mtime.
-- Returns as write.lua does; {'lost'} when there is no stage.
local p = place_at(KEYS[2], KEYS[3], ARGV[1])
if typeof(KEYS[1]) ~= 'string' then return { 'lost' } end
local value = call('GET', KEYS[1])
local what = resolve(p) or room(p, ARGV[3])
if not what or what == 'c' then return { 'collection' } end
put_value(p, what, value)
call('DEL', KEYS[1])
return { 'ok', #value, mark_written(KEYS[4], ARGV[2], ARGV[4]), what }
