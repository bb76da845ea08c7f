-- Behind known.lua: clears properties of the dataset's own.
-- Arguments: properties (a list). Returns the error number (0: done).
for _, property in ipairs(args["properties"]) do
    errno = zfs.sync.inherit(name, property)
    if errno ~= 0 then
        return errno
    end
end
return 0
