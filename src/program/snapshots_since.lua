-- The snapshots of a dataset that are newer than another snapshot, which may be elsewhere by now.
-- Arguments: name, base (a full name). Returns "gone" where one of them is.
args = ...
if not zfs.exists(args["name"]) or not zfs.exists(args["base"]) then
    return "gone"
end
base = zfs.get_prop(args["base"], "createtxg")
-- Damaged: asked for snapshots of such a dataset the kernel panics (zcp_snapshots_iter).
for _, name in ipairs({ args["name"], args["base"] }) do
    if not zfs.get_prop(name, "type") then
        error("EIO: " .. name, 0)
    end
end
newer = {}
for snapshot in zfs.list.snapshots(args["name"]) do
    txg = zfs.get_prop(snapshot, "createtxg")
    if not txg then
        error("EIO: " .. snapshot, 0)
    end
    if txg > base then
        newer[#newer + 1] = snapshot
    end
end
return newer
