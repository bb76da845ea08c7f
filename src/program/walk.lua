-- One piece of a walk through a pool: this crate's own user properties (see journal.lua) on some carriers; of
-- datasets among them also those on their snapshots named "txn-...", and the names of their children. What
-- there is no room for is left to another piece: of a carrier all is told, or nothing.
-- Arguments: carriers (a list), deep (false: nothing but the carriers themselves), names (how many properties,
-- snapshots and children to go through at the most), bytes (how much to return).
-- Returns done (how many of the carriers), found and children.
args = ...
names = args["names"]
bytes = args["bytes"]
found = {}
children = {}

-- These say whether there was room. The properties of the first carrier are gone through however many they are:
-- no piece would have fewer.
function add(carrier, is_first)
    -- Damaged: asked for its properties, or its children, the kernel panics (zcp_user_props_list, zcp_children_iter). Or of
    -- a type that a receive has taken from a forged stream: libzfs ends the process that asks about it.
    if not zfs.get_prop(carrier, "type") then
        error("EIO: " .. carrier, 0)
    end
    for property, value, source in zfs.list.user_properties(carrier) do
        names = names - 1
        if names < 0 and not is_first then
            return false
        end
        if string.sub(property, 1, 8) == "zfs-txn:" and (source == carrier or source == "$recvd") then
            -- And what a list needs beside them.
            bytes = bytes - #carrier - #property - #value - 1024
            if bytes < 0 then
                return false
            end
            guid = zfs.get_prop(carrier, "guid")
            createtxg = zfs.get_prop(carrier, "createtxg")
            found[#found + 1] = {
                carrier = carrier, guid = guid, createtxg = createtxg,
                property = property, value = value, source = source
            }
        end
    end
    return true
end

function look(dataset, is_first)
    if not add(dataset, is_first) then
        return false
    end
    -- A name of 255 bytes leaves no room for that of a snapshot or child: asked for them, the kernel panics
    -- (zcp_snapshots_iter, zcp_children_iter).
    if not args["deep"] or #dataset > 254 then
        return true
    end
    first = #dataset + 2
    for snapshot in zfs.list.snapshots(dataset) do
        names = names - 1
        if names < 0 or string.sub(snapshot, first, first + 3) == "txn-" and not add(snapshot, false) then
            return false
        end
    end
    for child in zfs.list.children(dataset) do
        names = names - 1
        if names < 0 then
            return false
        end
        children[#children + 1] = child
    end
    return true
end

for number, carrier in ipairs(args["carriers"]) do
    last_found = #found
    last_child = #children
    if zfs.exists(carrier) and not look(carrier, number == 1) then
        for extra = #found, last_found + 1, -1 do
            found[extra] = nil
        end
        for extra = #children, last_child + 1, -1 do
            children[extra] = nil
        end
        return { done = number - 1, found = found, children = children }
    end
end
return { done = #args["carriers"], found = found, children = children }
