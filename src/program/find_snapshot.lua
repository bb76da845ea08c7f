-- Finds a snapshot by guid among those with a name below a dataset's children: renames and promotes
-- of others may have moved it. A receive gives its snapshot the guid that the stream says; that one is younger, and what
-- marks the snapshot was not set on it.
-- Arguments: parent, leaf, guid, and for a snapshot that is marked property, and value if it has to be this one.
-- Returns its full name, or "gone".
args = ...

function is_marked(name)
    if not args["property"] then
        return true
    end
    for property, value, source in zfs.list.user_properties(name) do
        if property == args["property"] and source == name then
            return not args["value"] or value == args["value"]
        end
    end
    return false
end

found = "gone"
oldest = nil
for child in zfs.list.children(args["parent"]) do
    name = child .. "@" .. args["leaf"]
    -- Of a longer name the kernel says no such thing, but fails.
    if #name < 256 and zfs.exists(name) then
        guid = zfs.get_prop(name, "guid")
        txg = zfs.get_prop(name, "createtxg")
        if guid == args["guid"] and (not oldest or txg < oldest) and is_marked(name) then
            found = name
            oldest = txg
        end
    end
end
return found
