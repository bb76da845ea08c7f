-- Finds a snapshot among those with a name below a dataset's children: renames and promotes of others may have moved
-- it. A receive can give its snapshot the same guid, but makes it in a later txg.
-- Arguments: parent, stem (that of a target's name), leaf, guid and createtxg. Returns its full name, or "gone". An error
-- where one can't be read that may be the one, on what is named after the target. That of anybody else stops nobody.
args = ...
if not zfs.get_prop(args["parent"], "type") then
    error("EIO: " .. args["parent"], 0)
end
stem = args["stem"]
for child in zfs.list.children(args["parent"]) do
    name = child .. "@" .. args["leaf"]
    -- Of a longer name the kernel says no such thing, but fails.
    if #name < 256 and zfs.exists(name) then
        guid = zfs.get_prop(name, "guid")
        createtxg = zfs.get_prop(name, "createtxg")
        if guid == args["guid"] and createtxg == args["createtxg"] then
            return name
        end
        if not guid and string.sub(child, 1, #stem) == stem then
            rest = string.sub(child, #stem + 1)
            id = string.match(rest, "^%-txn%-([0-9a-f]+)$") or string.match(rest, "^%-old%-([0-9a-f]+)$")
            if rest == "" or id and #id == 16 then
                unread = name
            end
        end
    end
end
if unread then
    error("EIO: " .. unread, 0)
end
return "gone"
