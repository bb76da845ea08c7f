-- Clears properties of a dataset's own if it is the one that is meant.
-- Arguments: name, guid, properties (a list). Returns "gone", "foreign", or the error number (0: done).
args = ...
name = args["name"]
if not zfs.exists(name) then
    return "gone"
end
guid = zfs.get_prop(name, "guid")
if guid ~= args["guid"] then
    return "foreign"
end
for _, property in ipairs(args["properties"]) do
    errno = zfs.sync.inherit(name, property)
    if errno ~= 0 then
        return errno
    end
end
return 0
