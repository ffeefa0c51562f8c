-- Where the first data or the first hole of contents is. KEYS[1] is the inode. ARGV: what the
-- keys of blocks begin with, the inode's number, the bytes of a block, where to begin, 'd' for
-- data or 'h' for a hole, how many blocks to look at.
-- Returns {1, where}, {0} when there is none, or {2, where to go on}.
local now = call('HMGET', KEYS[1], 'size', 'data')
local size, data = tonumber(now[1] or 0), now[2] or ARGV[2]
local block, from, want = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local first = math.floor(from / block)
for n = first, first + tonumber(ARGV[6]) - 1 do
  local start = n * block
  if start >= size then return { 0 } end
  local len = call('STRLEN', ARGV[1] .. data .. ':' .. text(n) .. '}')
  if want == 'd' and len > 0 and start + len > from then return { 1, text(max(start, from)) } end
  if want == 'h' and len < block then return { 1, text(max(start + len, from)) } end
end
return { 2, text((first + tonumber(ARGV[6])) * block) }
