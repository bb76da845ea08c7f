-- The snapshots of a dataset that are newer than another snapshot, which may be elsewhere by now.
-- Arguments: name, base (a full name). Returns "gone" where one of them is.
args = ...
if not zfs.exists(args["name"]) or not zfs.exists(args["base"]) then
    return "gone"
end
base = zfs.get_prop(args["base"], "createtxg")
newer = {}
for snapshot in zfs.list.snapshots(args["name"]) do
    txg = zfs.get_prop(snapshot, "createtxg")
    if txg > base then
        newer[#newer + 1] = snapshot
    end
end
return newer
