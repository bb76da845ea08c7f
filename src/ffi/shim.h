/*
 * C that Rust can't reach by itself: calls whose declarations differ between OpenZFS 2.1 and 2.4,
 * calls that not every release has, and work that needs a POSIX type.
 */
#ifndef ZFS_TXN_SHIM_H
#define	ZFS_TXN_SHIM_H

#include <libnvpair.h>
#include <libzfs.h>
#include <libzfs_core.h>
#include <stddef.h>
#include <stdint.h>

/* 2.2 added const to the string parameters of these three. */
int zfs_txn_nvlist_add_strings(nvlist_t *list, const char *name,
    const char *const *strings, uint32_t count);
int zfs_txn_nvpair_string(nvpair_t *pair, const char **out);
int zfs_txn_nvpair_strings(nvpair_t *pair, const char *const **out,
    uint32_t *count);

/* The flag that leaves mounts alone is a macro; it and the function came with 2.2. */
int zfs_txn_prop_set_list_nomount(zfs_handle_t *zhp, nvlist_t *props);

/*
 * Adds the full names of a dataset's children, or of its snapshots, to a list,
 * with their types. A child whose type is neither a filesystem's nor a volume's
 * has a snapshot's (make_dataset_simple_handle_zc). Returns an error number, or
 * -1 where it is the library that knows the error.
 */
int zfs_txn_list(zfs_handle_t *zhp, int snapshots, nvlist_t *out);

/* The mount point that applies to a filesystem, with the pool's alternate root. */
int zfs_txn_mountpoint(zfs_handle_t *zhp, char *out, size_t room);

/*
 * Gives the calling thread a table of descriptors of its own, which has these
 * and no others; they are given in ascending order. Returns an error number.
 */
int zfs_txn_keep_only(const int *sorted, size_t count);

#endif
