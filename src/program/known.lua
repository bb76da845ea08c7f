-- The beginning of each program that acts on one dataset: it must be the one that is meant.
-- Arguments: name, guid. Returns "gone" or "foreign" where it isn't.
args = ...
name = args["name"]
if not zfs.exists(name) then
    return "gone"
end
guid = zfs.get_prop(name, "guid")
if guid ~= args["guid"] then
    return "foreign"
end
