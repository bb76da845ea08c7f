-- Destroys a dataset or snapshot if it is the one that is meant: guid check and destroy share a txg.
-- Arguments: name, guid. Returns "gone", "foreign", or the error number of the destroy (0: done).
args = ...
name = args["name"]
if not zfs.exists(name) then
    return "gone"
end
if zfs.get_prop(name, "guid") ~= args["guid"] then
    return "foreign"
end
return zfs.sync.destroy(name)
