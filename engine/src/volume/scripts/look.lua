-- Where a name leads. KEYS[1] is the directory. ARGV: what the keys of inodes begin with,
-- the name, and the fields of an inode that are wanted.
-- Returns nil, or the entry and the values.
local from = '[' .. ARGV[2] .. '\0'
local found = call('ZRANGEBYLEX', KEYS[1], from, from .. '\255', 'LIMIT', 0, 1)[1]
if not found then return false end
local ino = string.sub(found, #ARGV[2] + 3)
return { found, call('HMGET', ARGV[1] .. ino, unpack(ARGV, 3)) }
