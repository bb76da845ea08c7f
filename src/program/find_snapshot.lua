-- Finds a snapshot by guid among those with a name below a dataset's children: renames and promotes
-- of others may have moved it. Arguments: parent, leaf, guid. Returns its full name, or "gone".
args = ...
for child in zfs.list.children(args["parent"]) do
    name = child .. "@" .. args["leaf"]
    if zfs.exists(name) then
        guid = zfs.get_prop(name, "guid")
        if guid == args["guid"] then
            return name
        end
    end
end
return "gone"
