-- Makes a workspace's change ready to be sent, if target, workspace and base are the ones that are
-- meant, nobody has promoted a clone of the target, and nothing was written to it: checks, bookmark,
-- snapshot and record share a txg. From then on promote.lua refuses to promote another clone.
-- Arguments: target, target_guid, target_origin (a guid; 0 where it has none), workspace,
-- workspace_guid, base (the workspace's origin) and base_guid, since (a snapshot's full name),
-- bookmark and snapshot (full names), property and record.
-- Returns "replaced" or "written", or the error number (0: done).
args = ...

function is(name, guid)
    return zfs.exists(name) and zfs.get_prop(name, "guid") == guid
end

workspace = args["workspace"]
base = args["base"]
if not is(args["target"], args["target_guid"]) or not is(workspace, args["workspace_guid"]) then
    return "replaced"
end
-- The base has to be the target's: what is received is the difference from it.
if not is(base, args["base_guid"]) or string.sub(base, 1, #args["target"] + 1) ~= args["target"] .. "@" then
    return "replaced"
end
origin = zfs.get_prop(args["target"], "origin")
if origin then
    if not is(origin, args["target_origin"]) then
        return "replaced"
    end
elseif args["target_origin"] ~= 0 then
    return "replaced"
end
-- Zero is exact; other numbers are sums, in which one change may hide another.
written = zfs.get_prop(args["target"], "written@" .. args["since"])
if written ~= 0 then
    return "written"
end
errno = zfs.check.snapshot(args["snapshot"])
if errno ~= 0 then
    return errno
end
there = false
for bookmark in zfs.list.bookmarks(workspace) do
    there = there or bookmark == args["bookmark"]
end
if not there then
    errno = zfs.sync.bookmark(base, args["bookmark"])
    if errno ~= 0 then
        return errno
    end
end
errno = zfs.sync.snapshot(args["snapshot"])
if errno ~= 0 then
    return errno
end
return zfs.sync.set_prop(base, args["property"], args["record"])
