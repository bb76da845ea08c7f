-- Finds a snapshot by guid among those with a name below a dataset's children: renames and promotes
-- of others may have moved it. A receive gives its snapshot the guid that the stream says; that one is younger.
-- Arguments: parent, leaf, guid. Returns its full name, or "gone".
args = ...
found = "gone"
oldest = nil
for child in zfs.list.children(args["parent"]) do
    name = child .. "@" .. args["leaf"]
    -- Of a longer name the kernel says no such thing, but fails.
    if #name < 256 and zfs.exists(name) then
        guid = zfs.get_prop(name, "guid")
        txg = zfs.get_prop(name, "createtxg")
        if guid == args["guid"] and (not oldest or txg < oldest) then
            found = name
            oldest = txg
        end
    end
end
return found
