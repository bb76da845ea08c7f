-- Finds a snapshot among those with a name below a dataset's children: renames and promotes of others may have moved
-- it. A receive can give its snapshot the same guid, but makes it in a later txg.
-- Arguments: parent, leaf, guid and createtxg. Returns its full name, or "gone".
args = ...
for child in zfs.list.children(args["parent"]) do
    name = child .. "@" .. args["leaf"]
    -- Of a longer name the kernel says no such thing, but fails.
    if #name < 256 and zfs.exists(name) then
        guid = zfs.get_prop(name, "guid")
        createtxg = zfs.get_prop(name, "createtxg")
        if guid == args["guid"] and createtxg == args["createtxg"] then
            return name
        end
    end
end
return "gone"
