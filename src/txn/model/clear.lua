-- Destroys all datasets below one but some. Arguments: scope, but (a list). Returns how many stay.
args = ...
for _ = 1, 8 do
    left = 0
    for child in zfs.list.children(args["scope"]) do
        keep = false
        for _, name in ipairs(args["but"]) do
            keep = keep or name == child
        end
        if not keep then
            snapshots = {}
            for snapshot in zfs.list.snapshots(child) do
                snapshots[#snapshots + 1] = snapshot
            end
            for _, snapshot in ipairs(snapshots) do
                zfs.sync.destroy(snapshot)
            end
            if zfs.sync.destroy(child) ~= 0 then
                left = left + 1
            end
        end
    end
    if left == 0 then
        break
    end
end
return left
