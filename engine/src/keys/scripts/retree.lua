-- Renames many keys, all or none. KEYS are pairs: from, to. ARGV[1] is the index of the
-- directory's own value (0 for none), ARGV[2] the first version of side hashes. Returns how many were renamed, or -1 when a target
-- exists.
if not vacant(1, #KEYS, nil) then return -1 end
return retree(1, #KEYS, tonumber(ARGV[1]), ARGV[2])
