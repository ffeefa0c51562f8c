-- Changes what a mount has locked of an inode, unless a lock of another mount stands in the way.
-- KEYS: the locks of the inode, sessions, the inode, the inodes of which the mount has locked
-- something. ARGV: the mount, the inode's number, the record of the lock that is wanted ('' for
-- none), 1 when something is to change, and the records of all locks the mount has from then on.
-- A record is 34 bytes: kind, mode ('x' is exclusive), and the first byte and the one behind the
-- last, in 16 digits each, so that they compare as strings.
-- Returns {'no', record} of the lock in the way, or {'ok', stamp of the inode}.
local locks, sessions, inode, index = unpack(KEYS)
local me, ino, wanted, change, records = unpack(ARGV)
if wanted ~= '' then
  local all = call('HGETALL', locks)
  for i = 1, #all, 2 do
    if all[i] ~= me and call('ZSCORE', sessions, all[i]) then
      for at = 1, #all[i + 1], 34 do
        local held = all[i + 1]:sub(at, at + 33)
        local exclusive = wanted:sub(2, 2) == 'x' or held:sub(2, 2) == 'x'
        if exclusive and held:sub(1, 1) == wanted:sub(1, 1)
          and held:sub(3, 18) < wanted:sub(19, 34) and wanted:sub(3, 18) < held:sub(19, 34)
        then
          return { 'no', held }
        end
      end
    end
  end
end
if change == '1' then
  if records == '' then
    call('HDEL', locks, me)
    call('SREM', index, ino)
  else
    call('HSET', locks, me, records)
    call('SADD', index, ino)
  end
end
return { 'ok', call('HGET', inode, 'change') or '' }
