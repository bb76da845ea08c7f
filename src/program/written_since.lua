-- Bytes written to a dataset since a snapshot, exact for this txg when run in syncing context.
-- Arguments: name, snapshot (a full name).
args = ...
-- get_prop returns the source, too.
written = zfs.get_prop(args["name"], "written@" .. args["snapshot"])
return written
