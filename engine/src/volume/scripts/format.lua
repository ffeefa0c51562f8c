-- Makes a volume. KEYS: super, usage, the root's inode. ARGV: number of arguments that
-- belong to super, fields and values of super, fields and values of the root.
-- Returns 1, or 0 when there is a volume already.
if call('EXISTS', KEYS[1]) == 1 then return 0 end
local n = tonumber(ARGV[1])
call('HSET', KEYS[3], unpack(ARGV, n + 2))
call('HSET', KEYS[2], 'inodes', 1, 'bytes', 0, 'ino', 1, 'mount', 0)
call('HSET', KEYS[1], unpack(ARGV, 2, n + 1))
return 1
