-- A page of a directory. KEYS: its entries, its inode. ARGV: what the keys of inodes begin
-- with, where to start (as ZRANGEBYLEX takes it), how many entries, and the fields of an
-- inode that are wanted ('' alone: none).
-- Returns the directory's stamp, then for each entry the entry and the values.
local page = { call('HGET', KEYS[2], 'change') }
local names = call('ZRANGEBYLEX', KEYS[1], ARGV[2], '+', 'LIMIT', 0, ARGV[3])
for _, member in ipairs(names) do
  page[#page + 1] = member
  if ARGV[4] ~= '' then
    local ino = string.sub(member, string.find(member, '\0', 1, true) + 2)
    page[#page + 1] = call('HMGET', ARGV[1] .. ino, unpack(ARGV, 4))
  end
end
return page
