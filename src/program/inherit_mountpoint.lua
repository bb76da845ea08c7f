-- Clears a dataset's own mountpoint property if it is the one that is meant.
-- Arguments: name, guid. Returns "gone", "foreign", or the error number (0: done).
args = ...
name = args["name"]
if not zfs.exists(name) then
    return "gone"
end
if zfs.get_prop(name, "guid") ~= args["guid"] then
    return "foreign"
end
return zfs.sync.inherit(name, "mountpoint")
