-- Records of transactions on one target, and marks on what they made: user properties that begin with
-- "zfs-txn:", on datasets and on snapshots named "txn-...". Inherited values are left out; a value that a receive
-- brought is told apart by its source.
-- Arguments: target, parent and above (a list): the target, what is named after it, and the datasets above.
args = ...
found = {}

function add(carrier)
    for property, value, source in zfs.list.user_properties(carrier) do
        if string.sub(property, 1, 8) == "zfs-txn:" and (source == carrier or source == "$recvd") then
            guid = zfs.get_prop(carrier, "guid")
            found[#found + 1] = {
                carrier = carrier, guid = guid, property = property, value = value, source = source
            }
        end
    end
end

function look(dataset)
    add(dataset)
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
    target = args["target"]
    for child in zfs.list.children(args["parent"]) do
        rest = string.sub(child, #target + 1, #target + 5)
        if child == target or string.sub(child, 1, #target) == target and (rest == "-txn-" or rest == "-old-") then
            look(child)
        end
    end
end
return found
