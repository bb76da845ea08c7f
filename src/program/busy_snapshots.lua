-- Finds snapshots of a dataset that something uses: a mount, or a send. Where there is none such, those that
-- are held, which hides the rest.
-- Arguments: name, base (a snapshot's full name: newer ones don't count).
args = ...
busy = {}
held = {}
-- What is damaged has no type: asked for its snapshots the kernel panics (zcp_snapshots_iter).
if not zfs.exists(args["base"]) or not zfs.get_prop(args["base"], "type") or not zfs.get_prop(args["name"], "type") then
    return busy
end
base_txg = zfs.get_prop(args["base"], "createtxg")
for snapshot in zfs.list.snapshots(args["name"]) do
    txg = zfs.get_prop(snapshot, "createtxg")
    if txg and txg <= base_txg and zfs.check.destroy(snapshot) == 16 then
        holds = zfs.get_prop(snapshot, "userrefs")
        if holds == 0 then
            busy[#busy + 1] = snapshot
        else
            held[#held + 1] = snapshot
        end
    end
end
if #busy > 0 then
    return busy
end
return held
