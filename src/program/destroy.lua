-- Destroys a dataset or snapshot if it is the one that is meant, and, where told, if nothing was
-- written to it since a snapshot: checks and destroy share a txg. If that is a snapshot of its own,
-- it is destroyed with it.
-- Arguments: name, guid; optionally since (a snapshot's full name).
-- Returns "gone", "foreign", "written", or the error number of the destroy (0: done).
args = ...
name = args["name"]
since = args["since"]
if not zfs.exists(name) then
    return "gone"
end
guid = zfs.get_prop(name, "guid")
if guid ~= args["guid"] then
    return "foreign"
end
if since then
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
return zfs.sync.destroy(name)
