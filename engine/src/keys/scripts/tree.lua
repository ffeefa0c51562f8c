-- Renames of many keys. KEYS from `first` to `last` are pairs: from, to.

-- No target exists, but for the key `except`, which goes away before.
local function vacant(first, last, except)
  for n = first, last, 2 do
    local to = KEYS[n + 1]
    if to ~= except and call('EXISTS', KEYS[n]) == 1 and call('EXISTS', to) == 1 then
      return false
    end
  end
  return true
end

-- A pair whose source is gone is passed over, so a second application does no harm. The
-- pair whose source is KEYS[own] is the directory's own value (0: none): a hash there is
-- not part of the directory and stays. Side hashes count their changes from `version` on:
-- the one that stood there before may have come to the same count.
local SIDE = NONE .. 'a:'
local function retree(first, last, own, version)
  local renamed = 0
  for n = first, last, 2 do
    local t = typeof(KEYS[n])
    if t ~= 'none' and not (n == own and t == 'hash') then
      call('RENAME', KEYS[n], KEYS[n + 1])
      if t == 'hash' and string.sub(KEYS[n + 1], 1, #SIDE) == SIDE then
        call('HSET', KEYS[n + 1], '/v', version)
      end
      renamed = renamed + 1
    end
  end
  return renamed
end
