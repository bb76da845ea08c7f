-- What ZFS knows of a dataset or snapshot; nothing where it doesn't exist. What can't be read is an error: asked for its
-- children, the kernel would panic (zcp_children_iter).
-- Arguments: name.
args = ...
name = args["name"]
if not zfs.exists(name) then
    return {}
end
facts = {}
-- None: damaged, or of a type that a receive has taken from a forged stream.
facts.type = zfs.get_prop(name, "type")
if not facts.type then
    error("EIO: " .. name, 0)
end
facts.guid = zfs.get_prop(name, "guid")
facts.createtxg = zfs.get_prop(name, "createtxg")
if string.find(name, "@", 1, true) then
    return facts
end
if facts.type == "filesystem" then
    facts.mountpoint = zfs.get_prop(name, "mountpoint")
end
origin = zfs.get_prop(name, "origin")
if origin then
    -- Zero: one that can't be read. What asks for the dataset alone goes on.
    facts.origin_guid = zfs.get_prop(origin, "guid") or 0
    facts.origin_createtxg = zfs.get_prop(origin, "createtxg") or 0
end
facts.children = 0
-- A longer name leaves no room for that of a child (see walk.lua).
if #name > 254 then
    return facts
end
for _ in zfs.list.children(name) do
    facts.children = facts.children + 1
end
return facts
