-- The directories above one. ARGV: what the keys of inodes begin with, the directory, how
-- many steps at most. KEYS[1] is the directory's inode.
-- Returns their numbers, from its parent up to the root.
local chain, at = {}, ARGV[2]
for _ = 1, tonumber(ARGV[3]) do
  local up = call('HGET', ARGV[1] .. at, 'parent')
  if not up or up == at then break end
  chain[#chain + 1] = up
  at = up
end
return chain
