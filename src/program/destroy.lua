-- Destroys a dataset or snapshot if it is the one that is meant, and, where told, if nothing more
-- was written to it: checks and destroy share a txg.
-- Arguments: name, guid; optionally since (a snapshot's full name) and written (bytes since then).
-- Returns "gone", "foreign", "written", or the error number of the destroy (0: done).
args = ...
name = args["name"]
if not zfs.exists(name) then
    return "gone"
end
if zfs.get_prop(name, "guid") ~= args["guid"] then
    return "foreign"
end
if args["since"] and zfs.get_prop(name, "written@" .. args["since"]) ~= args["written"] then
    return "written"
end
return zfs.sync.destroy(name)
