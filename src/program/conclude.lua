-- The end of a commit, in one txg: destroys the predecessor if nothing was written to it, lets the
-- target claim its mount point, has tools heed it as before, and removes the record. A predecessor that can't be destroyed gives
-- up its claim instead, and the record stays with it.
-- Arguments: target, target_guid, gate (a list of properties to clear), marked (a list of datasets),
-- mark (their property to clear), tools (a value by property), named_for_tools (prefixes of properties)
-- and named_off (their value): what has had tools leave the workspace alone; carrier, carrier_guid, property, committed (the record's value where
-- it stays); for an update predecessor, predecessor_guid, and, unless the predecessor is to be kept,
-- since (a snapshot's full name) and since_guid.
-- Returns a verdict: "replaced", "written" or "busy" (with errno: nothing was done), or "done", with
-- the error number of what keeps the record (0: it is gone).
args = ...

function is(name, guid)
    return name and zfs.exists(name) and zfs.get_prop(name, "guid") == guid
end

target = args["target"]
if not is(target, args["target_guid"]) then
    return { verdict = "replaced", errno = 0 }
end
for _, property in ipairs(args["gate"]) do
    errno = zfs.check.inherit(target, property)
    if errno ~= 0 then
        return { verdict = "busy", errno = errno }
    end
end

-- Whether this is what has had a tool leave the workspace alone.
function keeps_away(property, value)
    for _, prefix in ipairs(args["named_for_tools"]) do
        if string.sub(property, 1, #prefix) == prefix then
            return value == args["named_off"]
        end
    end
    return value == args["tools"][property]
end

old = args["predecessor"]
left = 0
-- The target's own values, which the predecessor has had all the while.
before = {}
if is(old, args["predecessor_guid"]) then
    for property, value, source in zfs.list.user_properties(old) do
        if source == old or source == "$recvd" then
            before[property] = value
        end
    end
end
if is(old, args["predecessor_guid"]) then
    if not args["since"] then
        left = zfs.sync.inherit(old, "mountpoint")
        if left ~= 0 then
            return { verdict = "busy", errno = left }
        end
        left = 16
    else
        since = args["since"]
        if not is(since, args["since_guid"]) then
            return { verdict = "replaced", errno = 0 }
        end
        -- Zero is exact; other numbers are sums, in which one change may hide another.
        written = zfs.get_prop(old, "written@" .. since)
        if written ~= 0 then
            return { verdict = "written", errno = 0 }
        end
        -- Waiting would not help against snapshots, those of other transactions for example.
        for snapshot in zfs.list.snapshots(old) do
            if snapshot ~= since then
                return { verdict = "busy", errno = 17 }
            end
        end
        for _ in zfs.list.bookmarks(old) do
            return { verdict = "busy", errno = 17 }
        end
        if string.sub(since, 1, #old + 1) == old .. "@" then
            errno = zfs.sync.destroy(since)
            if errno ~= 0 then
                return { verdict = "busy", errno = errno }
            end
        end
        errno = zfs.sync.destroy(old)
        if errno ~= 0 then
            return { verdict = "busy", errno = errno }
        end
    end
end

for _, property in ipairs(args["gate"]) do
    zfs.sync.inherit(target, property)
end
closed = {}
for property, value, source in zfs.list.user_properties(target) do
    if source == target and keeps_away(property, value) then
        closed[#closed + 1] = property
    end
end
for _, property in ipairs(closed) do
    if before[property] then
        zfs.sync.set_prop(target, property, before[property])
    else
        zfs.sync.inherit(target, property)
    end
end
for _, dataset in ipairs(args["marked"]) do
    if zfs.exists(dataset) then
        zfs.sync.inherit(dataset, args["mark"])
    end
end
carrier = args["carrier"]
if not is(carrier, args["carrier_guid"]) then
    return { verdict = "done", errno = left }
end
if not string.find(carrier, "@", 1, true) then
    return { verdict = "done", errno = zfs.sync.inherit(carrier, args["property"]) }
end
if left == 0 then
    left = zfs.sync.destroy(carrier)
end
if left ~= 0 then
    zfs.sync.set_prop(carrier, args["property"], args["committed"])
end
return { verdict = "done", errno = left }
