-- Behind known.lua: destroys the dataset or snapshot; where told, only if nothing was written to it
-- since a snapshot. If that is a snapshot of its own, it is destroyed with it. All in one txg.
-- A dataset with bookmarks is not destroyed either: they are somebody's.
-- Arguments: optionally since (a snapshot's full name) and since_guid.
-- Returns "written", "foreign" (since is another), or the error number of the destroy (0: done; 16,
-- EBUSY, also for a snapshot that a receive needs at this moment).
if not string.find(name, "@", 1, true) then
    for _ in zfs.list.bookmarks(name) do
        return 17
    end
end
since = args["since"]
if since then
    if not zfs.exists(since) then
        return "foreign"
    end
    since_guid = zfs.get_prop(since, "guid")
    if since_guid ~= args["since_guid"] then
        return "foreign"
    end
    -- Zero is exact; other numbers are sums, in which one change may hide another.
    written = zfs.get_prop(name, "written@" .. since)
    if written ~= 0 then
        return "written"
    end
    if string.sub(since, 1, #name + 1) == name .. "@" then
        errno = zfs.sync.destroy(since)
        if errno ~= 0 then
            return errno
        end
    end
end
errno = zfs.sync.destroy(name)
-- A receive in place clones the newest snapshot, whoever's it is, until it has ended.
dataset = string.match(name, "^([^@]+)@")
if errno == 17 and dataset and zfs.exists(dataset .. "/%recv") then
    return 16
end
return errno
