-- Behind known.lua: destroys a workspace with its own snapshots, in one txg. It must still be the
-- clone that it was made as: after a promote it holds the target's snapshots. Where it has bookmarks or
-- children, or one of the snapshots is held or cloned, all of it is left.
-- Arguments: origin (a guid; 0 where it is no clone).
-- Returns "foreign" where it has another origin, or the error number (0: done).
origin = zfs.get_prop(name, "origin")
origin_guid = 0
if origin then
    origin_guid = zfs.get_prop(origin, "guid")
    if not origin_guid then
        return 5
    end
end
if origin_guid ~= args["origin"] then
    return "foreign"
end
-- A longer name leaves no room for that of a child or snapshot (see walk.lua).
if #name > 254 then
    return zfs.sync.destroy(name)
end
-- What they count for in a feature of the pool would never be given back.
for _ in zfs.list.bookmarks(name) do
    return 17
end
for _ in zfs.list.children(name) do
    return 17
end
snapshots = {}
for snapshot in zfs.list.snapshots(name) do
    errno = zfs.check.destroy(snapshot)
    if errno ~= 0 then
        return errno
    end
    snapshots[#snapshots + 1] = snapshot
end
for _, snapshot in ipairs(snapshots) do
    errno = zfs.sync.destroy(snapshot)
    if errno ~= 0 then
        return errno
    end
end
return zfs.sync.destroy(name)
