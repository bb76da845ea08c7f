-- All datasets below one, with what a user sees of them. Arguments: scope.
args = ...
found = {}
for child in zfs.list.children(args["scope"]) do
    seen = { note = "0", gated = 0, own = "", snapshots = "" }
    seen.guid = zfs.get_prop(child, "guid")
    seen.canmount = zfs.get_prop(child, "canmount")
    seen.zoned = zfs.get_prop(child, "zoned")
    path, source = zfs.get_prop(child, "mountpoint")
    seen.path = path
    if source == child then
        seen.own = path
    end
    for property, value, source in zfs.list.user_properties(child) do
        if source == child then
            if property == "test:note" then
                seen.note = value
            else
                seen.gated = 1
            end
        end
    end
    for snapshot in zfs.list.snapshots(child) do
        seen.snapshots = seen.snapshots .. " " .. string.sub(snapshot, #child + 2)
    end
    found[child] = seen
end
return found
