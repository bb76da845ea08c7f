-- The end of a commit in place, in one txg: destroys the workspace and the snapshots that nobody
-- asked for, and with the base the record. If any of them can't be destroyed, the record stays; a
-- workspace with bookmarks or children, or with a snapshot that is held or cloned, is left as a whole.
-- Arguments: target, target_guid, workspace and workspace_guid (or none), snapshots (guids by name),
-- base, base_guid, keeps (whether the record stays in any case), property, committed (its value then).
-- Returns "replaced" (nothing was done), or the error number of what keeps the record (0: it is
-- gone).
args = ...

function is(name, guid)
    return name and zfs.exists(name) and zfs.get_prop(name, "guid") == guid
end

if not is(args["target"], args["target_guid"]) then
    return "replaced"
end
left = 0
workspace = args["workspace"]
if is(workspace, args["workspace_guid"]) then
    origin = zfs.get_prop(workspace, "origin")
    -- After a promote it would hold the target's snapshots.
    if not is(origin, args["base_guid"]) then
        return "replaced"
    end
    -- What they count for in a feature of the pool would never be given back.
    for _ in zfs.list.bookmarks(workspace) do
        left = 17
    end
    for _ in zfs.list.children(workspace) do
        left = 17
    end
    snapshots = {}
    for snapshot in zfs.list.snapshots(workspace) do
        errno = zfs.check.destroy(snapshot)
        if left == 0 then
            left = errno
        end
        snapshots[#snapshots + 1] = snapshot
    end
    if left == 0 then
        for _, snapshot in ipairs(snapshots) do
            errno = zfs.sync.destroy(snapshot)
            if left == 0 then
                left = errno
            end
        end
    end
    if left == 0 then
        left = zfs.sync.destroy(workspace)
    end
end
for snapshot, guid in pairs(args["snapshots"]) do
    if is(snapshot, guid) then
        errno = zfs.sync.destroy(snapshot)
        if left == 0 then
            left = errno
        end
    end
end
if not is(args["base"], args["base_guid"]) then
    return left
end
if left == 0 and args["keeps"] then
    left = 17
end
if left == 0 then
    left = zfs.sync.destroy(args["base"])
    -- Another receive clones the newest snapshot, whoever's it is, until it has ended.
    if left == 17 and zfs.exists(args["target"] .. "/%recv") then
        left = 16
    end
end
if left ~= 0 then
    zfs.sync.set_prop(args["base"], args["property"], args["committed"])
end
return left
