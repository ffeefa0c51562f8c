-- A mount comes in. KEYS: usage, sessions. ARGV: how many inode numbers it wants, the
-- milliseconds of its lease, what the keys of the volume begin with. It can have nothing open of
-- what lost its name before. Returns its number and the last of its inode numbers.
local mount = call('HINCRBY', KEYS[1], 'mount', 1)
local ino = call('HINCRBY', KEYS[1], 'ino', ARGV[1])
local time = call('TIME')
call('ZADD', KEYS[2], text(time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2]), mount)
call('HSET', ARGV[3] .. 't:' .. mount, 'seen', call('HGET', KEYS[1], 'grave') or 0)
return { mount, ino }
