-- The beginning of each program that acts on one dataset: it must be the one that is meant.
-- Arguments: name, guid. Returns "gone" or "foreign" where it isn't, and 5 (EIO) where it can't be read: asked for its
-- properties or children, the kernel would panic (zcp_user_props_list, zcp_children_iter).
args = ...
name = args["name"]
if not zfs.exists(name) then
    return "gone"
end
guid = zfs.get_prop(name, "guid")
if not guid then
    return 5
end
if guid ~= args["guid"] then
    return "foreign"
end
