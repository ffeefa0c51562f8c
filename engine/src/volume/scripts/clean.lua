-- Removes bytes beyond the end of contents. KEYS: the inode, and blocks. ARGV: the length, up
-- to where there may be more, and the contents they were found with, the inode's number, how
-- many bytes of the first block stay (-1: it goes too), and up to where there may be more then.
-- Returns 1, or 0 when the contents are not those any more.
local now = call('HMGET', KEYS[1], 'size', 'stale', 'data')
if now[1] ~= ARGV[1] or now[2] ~= ARGV[2] or (now[3] or ARGV[4]) ~= ARGV[3] then return 0 end
local keep, first = tonumber(ARGV[5]), 2
if keep >= 0 then
  first = 3
  if call('STRLEN', KEYS[2]) > keep then
    call('SET', KEYS[2], call('GETRANGE', KEYS[2], 0, keep - 1))
  end
end
if KEYS[first] then call('UNLINK', unpack(KEYS, first)) end
if ARGV[6] == ARGV[1] then
  call('HDEL', KEYS[1], 'stale')
else
  call('HSET', KEYS[1], 'stale', ARGV[6])
end
return 1
