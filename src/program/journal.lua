-- Records of transactions on one target, and marks on what they made: user properties that begin with
-- "zfs-txn:", on datasets and on snapshots named "txn-...". Inherited values are left out; a value that a receive
-- brought is told apart by its source.
-- Arguments: target, parent and above (a list): the target, what is named after it, and the datasets above; id: the
-- only transaction to tell of, whose snapshots are asked for by name, however many others there are.
args = ...
id = args["id"]
found = {}

function is_meant(property, value)
    if not id then
        return string.sub(property, 1, 8) == "zfs-txn:"
    end
    is_mark = property == "zfs-txn:made-by" or property == "zfs-txn:look"
    return property == "zfs-txn:" .. id or is_mark and value == id
end

function add(carrier)
    -- Damaged: asked for its properties the kernel panics (zcp_user_props_list).
    if not zfs.get_prop(carrier, "type") then
        error("EIO: " .. carrier, 0)
    end
    for property, value, source in zfs.list.user_properties(carrier) do
        if is_meant(property, value) and (source == carrier or source == "$recvd") then
            guid = zfs.get_prop(carrier, "guid")
            createtxg = zfs.get_prop(carrier, "createtxg")
            found[#found + 1] = {
                carrier = carrier, guid = guid, createtxg = createtxg,
                property = property, value = value, source = source
            }
        end
    end
end

function look(dataset)
    -- A receive can make a dataset that is neither a filesystem nor a volume: nothing of it is told, nor of a guid.
    if dataset ~= args["target"] and not zfs.get_prop(dataset, "type") then
        return
    end
    add(dataset)
    if id then
        for _, ending in ipairs({ "", "-look" }) do
            snapshot = dataset .. "@txn-" .. id .. ending
            -- Of a longer name the kernel says no such thing, but fails.
            if #snapshot < 256 and zfs.exists(snapshot) then
                add(snapshot)
            end
        end
        return
    end
    -- A longer name leaves no room for that of a snapshot (see walk.lua).
    if #dataset > 254 then
        return
    end
    first = #dataset + 2
    for snapshot in zfs.list.snapshots(dataset) do
        if string.sub(snapshot, first, first + 3) == "txn-" then
            add(snapshot)
        end
    end
end

for _, dataset in ipairs(args["above"]) do
    if zfs.exists(dataset) then
        add(dataset)
    end
end
if zfs.exists(args["parent"]) then
    if not zfs.get_prop(args["parent"], "type") then
        error("EIO: " .. args["parent"], 0)
    end
    target = args["target"]
    for child in zfs.list.children(args["parent"]) do
        rest = string.sub(child, #target + 1, #target + 5)
        if child == target or string.sub(child, 1, #target) == target and (rest == "-txn-" or rest == "-old-") then
            look(child)
        end
    end
end
return found
