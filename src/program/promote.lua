-- Promotes a clone, and writes the record, if clone, head and base are the ones that are meant, if
-- nobody has promoted another clone of the head meanwhile, and, where told, if the head is as it was:
-- checks, promote and record share a txg.
-- Arguments: clone, clone_guid, head, head_guid, head_origin (a guid; 0 where it has none), base
-- (the guid of the clone's origin, which has to be the head's), since (a snapshot's full name;
-- none: the head may have been changed), property and record.
-- Returns a verdict: "replaced", "written", "newer" or "busy" (with the snapshot), or "done", with the error
-- number and the snapshots or bookmarks in the way.
args = ...

function is(name, guid)
    return zfs.exists(name) and zfs.get_prop(name, "guid") == guid
end

-- The last part of the name that transactions give, or that of a snapshot to compare.
function is_of_a_transaction(snapshot)
    id = string.match(snapshot, "@txn%-([0-9a-f]+)$") or string.match(snapshot, "@txn%-([0-9a-f]+)%-look$")
    return id and #id == 16
end

function origin_of(name)
    origin = zfs.get_prop(name, "origin")
    return origin
end

clone = args["clone"]
head = args["head"]
if not is(clone, args["clone_guid"]) or not is(head, args["head_guid"]) then
    return { verdict = "replaced" }
end
base = origin_of(clone)
if not base or not is(base, args["base"]) or string.sub(base, 1, #head + 1) ~= head .. "@" then
    return { verdict = "replaced" }
end
head_origin = origin_of(head)
if head_origin then
    if not is(head_origin, args["head_origin"]) then
        return { verdict = "replaced" }
    end
elseif args["head_origin"] ~= 0 then
    return { verdict = "replaced" }
end
-- A commit in place that has begun is not overtaken: what it receives would go to the old head.
for snapshot in zfs.list.snapshots(head) do
    if snapshot ~= base and is_of_a_transaction(snapshot) then
        -- Damaged: asked for its properties the kernel panics (zcp_user_props_list).
        if not zfs.get_prop(snapshot, "type") then
            return { verdict = "done", errno = 5, conflicts = { snapshot } }
        end
        for property, value, source in zfs.list.user_properties(snapshot) do
            if string.sub(property, 1, 8) == "zfs-txn:" and source == snapshot
                and string.find(value, ";strategy=in-place;state=committing;", 1, true) then
                return { verdict = "busy", snapshot = snapshot }
            end
        end
    end
end
if args["since"] then
    base_txg = zfs.get_prop(base, "createtxg")
    for snapshot in zfs.list.snapshots(head) do
        txg = zfs.get_prop(snapshot, "createtxg")
        if not txg then
            return { verdict = "done", errno = 5, conflicts = { snapshot } }
        end
        -- Those of other transactions come and go with them.
        if txg > base_txg and not is_of_a_transaction(snapshot) then
            return { verdict = "newer", snapshot = snapshot }
        end
    end
    -- Zero is exact; other numbers are sums, in which one change may hide another.
    written = zfs.get_prop(head, "written@" .. args["since"])
    if written ~= 0 then
        return { verdict = "written" }
    end
end
-- The kernel moves the head's bookmarks without a look at the clone's, and panics where it has one of
-- the same name: dsl_dataset_promote_check looks at those of the origin, a snapshot, which has none.
own = {}
for bookmark in zfs.list.bookmarks(clone) do
    own[string.sub(bookmark, #clone + 1)] = true
end
for bookmark in zfs.list.bookmarks(head) do
    if own[string.sub(bookmark, #head + 1)] then
        return { verdict = "done", errno = 17, conflicts = { bookmark } }
    end
end
errno, conflicts = zfs.sync.promote(clone)
if errno == 0 then
    errno = zfs.sync.set_prop(clone .. string.sub(base, #head + 1), args["property"], args["record"])
end
return { verdict = "done", errno = errno, conflicts = conflicts }
