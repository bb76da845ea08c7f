-- The snapshots of a dataset that are newer than one of them, newest first.
-- Arguments: name, guid (of the snapshot to stop at).
args = ...
newer = {}
snapshot = zfs.get_prop(args["name"], "prevsnap")
while snapshot and zfs.get_prop(snapshot, "guid") ~= args["guid"] do
    newer[#newer + 1] = snapshot
    snapshot = zfs.get_prop(snapshot, "prevsnap")
end
return newer
