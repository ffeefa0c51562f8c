-- Makes sure of the string that a large field is written to piece by piece, since every
-- change of a field itself copies all of it. KEYS: stage, full, bare (NONE for none).
-- ARGV: field, keep, length, milliseconds to keep it without a sign of life.
-- keep is 0: the stage is emptied. keep is 1: a stage that is missing starts as a copy of
-- the value, which must be that long at least.
-- Returns 'ok', 'gone' when there is no value to start from, or 'lost' when the stage is
-- missing and the value is not what was staged. After these two the stage is a hash, so that
-- the pieces which follow in the same batch are refused, and what they lack is not published.
local stage, keep, ms = KEYS[1], ARGV[2], ARGV[4]
local p = place_at(KEYS[2], KEYS[3], ARGV[1])
if keep == '0' then
  call('SET', stage, '', 'PX', ms)
  return 'ok'
end
local function refuse(why)
  call('HSET', stage, 'why', why)
  call('PEXPIRE', stage, ms)
  return why
end
local there = typeof(stage)
if there == 'hash' then return call('HGET', stage, 'why') end
if there ~= 'none' then
  call('PEXPIRE', stage, ms)
  return 'ok'
end
local what = resolve(p)
if what ~= 's' and what ~= 'f' then return refuse('gone') end
local value = value_of(p, what)
if #value < tonumber(ARGV[3]) then return refuse('lost') end
call('SET', stage, value, 'PX', ms)
return 'ok'
