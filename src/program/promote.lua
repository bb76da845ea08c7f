-- Promotes a clone if clone, head and base are the ones that are meant, and nobody has promoted
-- another clone of the head meanwhile: checks and promote share a txg.
-- Arguments: clone, clone_guid, head, head_guid, head_origin (a guid; 0 where it has none), base
-- (the guid of the clone's origin, which has to be the head's).
-- Returns "replaced", or the error number (0: done) and the snapshots in the way.
args = ...

function is(name, guid)
    return zfs.exists(name) and zfs.get_prop(name, "guid") == guid
end

function origin_of(name)
    origin = zfs.get_prop(name, "origin")
    return origin
end

if not is(args["clone"], args["clone_guid"]) or not is(args["head"], args["head_guid"]) then
    return { verdict = "replaced" }
end
base = origin_of(args["clone"])
if not base or not is(base, args["base"]) or string.sub(base, 1, #args["head"] + 1) ~= args["head"] .. "@" then
    return { verdict = "replaced" }
end
head_origin = origin_of(args["head"])
if head_origin then
    if not is(head_origin, args["head_origin"]) then
        return { verdict = "replaced" }
    end
elseif args["head_origin"] ~= 0 then
    return { verdict = "replaced" }
end
errno, conflicts = zfs.sync.promote(args["clone"])
return { errno = errno, conflicts = conflicts }
