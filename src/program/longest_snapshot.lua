-- The length of the longest name of a snapshot or bookmark of a dataset, without its own part.
-- Arguments: name.
args = ...
name = args["name"]
longest = 0
-- Damaged: asked for its snapshots the kernel panics (zcp_snapshots_iter).
if not zfs.get_prop(name, "type") then
    error("EIO: " .. name, 0)
end
-- A longer name leaves no room for another (see walk.lua).
if #name > 254 then
    return longest
end
for _, list in ipairs({ zfs.list.snapshots, zfs.list.bookmarks }) do
    for full in list(name) do
        -- The dataset's own name and the separator come before the leaf.
        length = #full - #name - 1
        if length > longest then
            longest = length
        end
    end
end
return longest
