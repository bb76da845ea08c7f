-- Whether a dataset is there, and its type: none where it is neither a filesystem nor a volume.
-- Arguments: name.
args = ...
if not zfs.exists(args["name"]) then
    return {}
end
return { there = true, type = zfs.get_prop(args["name"], "type") }
