#include "shim.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The casts through void * accept the parameter types of every release. */

int
zfs_txn_nvlist_add_strings(nvlist_t *list, const char *name,
    const char *const *strings, uint32_t count)
{
	return (nvlist_add_string_array(list, name, (void *)strings, count));
}

int
zfs_txn_nvpair_string(nvpair_t *pair, const char **out)
{
	return (nvpair_value_string(pair, (void *)out));
}

int
zfs_txn_nvpair_strings(nvpair_t *pair, const char *const **out,
    uint32_t *count)
{
	return (nvpair_value_string_array(pair, (void *)out, count));
}

int
zfs_txn_prop_set_list_nomount(zfs_handle_t *zhp, nvlist_t *props)
{
	return (zfs_prop_set_list_flags(zhp, props, ZFS_SET_NOMOUNT));
}

static int
add_name(zfs_handle_t *zhp, void *out)
{
	int error = nvlist_add_uint64(out, zfs_get_name(zhp), zfs_get_type(zhp));

	zfs_close(zhp);
	return (error);
}

int
zfs_txn_list(zfs_handle_t *zhp, int snapshots, nvlist_t *out)
{
	if (snapshots)
		return (zfs_iter_snapshots(zhp, B_TRUE, add_name, out, 0, 0));
	return (zfs_iter_filesystems_v2(zhp, ZFS_ITER_SIMPLE, add_name, out));
}

int
zfs_txn_mountpoint(zfs_handle_t *zhp, char *out, size_t room)
{
	return (zfs_prop_get(zhp, ZFS_PROP_MOUNTPOINT, out, room, NULL, NULL, 0,
	    B_FALSE));
}

static int
close_from_to(unsigned first, unsigned last)
{
	return (syscall(SYS_close_range, first, last, 0) == 0 ? 0 : errno);
}

int
zfs_txn_keep_only(const int *sorted, size_t count)
{
	unsigned next = 0;
	int error;

	if (unshare(CLONE_FILES) != 0)
		return (errno);
	for (size_t i = 0; i < count; i++) {
		unsigned kept = (unsigned)sorted[i];

		error = kept == next ? 0 : close_from_to(next, kept - 1);
		if (error != 0)
			return (error);
		next = kept + 1;
	}
	return (close_from_to(next, UINT_MAX));
}
