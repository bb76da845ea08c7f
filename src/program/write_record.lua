-- Behind known.lua: replaces a user property of a dataset or snapshot if its own value is the one
-- that is expected. Arguments: property, old and new (none: it has no value of its own).
-- Returns "foreign" where it has another value, or the error number (0: done).
for property, value, source in zfs.list.user_properties(name) do
    if property == args["property"] and source == name then
        own = value
    end
end
if own ~= args["old"] then
    return "foreign"
end
if args["new"] then
    return zfs.sync.set_prop(name, args["property"], args["new"])
end
return zfs.sync.inherit(name, args["property"])
